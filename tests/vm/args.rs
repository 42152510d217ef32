//! The command line. Flags of cargo's own test runner are accepted and ignored, so that
//! `cargo test -- --nocapture` and a filter by name do what one expects.

pub(crate) const HELP: &str = "\
Usage: cargo test --test vm -- [FLAGS] [FILTER…]
  FILTER     run the cases whose names contain one of the filters
  --exact    run the cases whose names are the filters
  --list     print the names of all cases
  --console  print everything that the machine's console says
  --shell    no cases: a shell in the machine; leave it with exit
  --systemd  the shell in the machine with systemd

Environment:
  RUNLANE_TIERS      tiers that have to run, such as 0,1,2,3: what they lack is then a failure
  RUNLANE_VM_KERNEL  another kernel's file, such as target/vm/vmlinuz-backports";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Run,
    List,
    Help,
    Shell,
}

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) filters: Vec<String>,
    pub(crate) exact: bool,
    pub(crate) console: bool,
    pub(crate) systemd: bool,
}

impl Args {
    pub(crate) fn parse(args: &[String]) -> Self {
        let mut parsed = Self {
            mode: Mode::Run,
            filters: Vec::new(),
            exact: false,
            console: false,
            systemd: false,
        };
        for arg in args {
            match arg.as_str() {
                "--list" => parsed.mode = Mode::List,
                "--help" | "-h" => parsed.mode = Mode::Help,
                "--shell" => parsed.mode = Mode::Shell,
                "--exact" => parsed.exact = true,
                "--systemd" => parsed.systemd = true,
                "--console" => parsed.console = true,
                flag if flag.starts_with('-') => {}
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        parsed
    }

    /// Whether a case is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let fits =
            |filter: &String| if self.exact { name == filter } else { name.contains(filter) };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

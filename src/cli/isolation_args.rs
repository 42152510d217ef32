//! Flags of isolation: the preset of a worker's runners, and what a task asks for beyond its runner's.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::wire::{IsolationSpec, Preset, TaskSpec};

/// A preset of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PresetArg {
    /// A session of its own, and the kill of everything that is left behind
    None,
    /// What nearly every program can live with
    Standard,
    /// Namespaces, a read-only file system, no capabilities
    Strict,
}

impl PresetArg {
    pub(super) fn preset(self) -> Preset {
        match self {
            Self::None => Preset::None,
            Self::Standard => Preset::Standard,
            Self::Strict => Preset::Strict,
        }
    }
}

/// What of the network a task can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetworkArg {
    /// Nothing but a loopback interface of its own
    None,
}

/// What a task asks for beyond its runner's isolation.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Task, isolation")]
pub(super) struct IsolationArgs {
    /// At least this preset; a runner's own may be stricter, never weaker
    #[arg(long, value_enum, value_name = "PRESET")]
    pub(super) isolation: Option<PresetArg>,

    /// Most memory of all its processes, such as 1GiB; past it the task is killed
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// Most processes and threads
    #[arg(long, value_name = "N")]
    pids: Option<u64>,

    /// Most CPU time, such as 50% or 150% of one CPU
    #[arg(long, value_name = "PERCENT")]
    cpu: Option<String>,

    /// What of the network it can reach [default: what its runner allows]
    #[arg(long, value_enum, value_name = "WHAT")]
    network: Option<NetworkArg>,
}

impl IsolationArgs {
    /// Adds what was said to the fields of a short spec.
    pub(super) fn add(&self, fields: &mut Map<String, Value>) {
        let mut wishes = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            wishes.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("preset", self.isolation.map(|preset| json!(preset.preset())));
        set("memory", self.memory.as_ref().map(|size| json!(size)));
        set("pids", self.pids.map(|count| json!(count)));
        set("cpu", self.cpu.as_ref().map(|percent| json!(percent)));
        set("network", self.network.map(|NetworkArg::None| json!("none")));
        if !wishes.is_empty() {
            fields.insert("isolation".to_owned(), wishes.into());
        }
    }

    /// Lays what was said over a spec from a file; `flags` is the spec that `add` led to.
    pub(super) fn apply(spec: &mut TaskSpec, flags: &TaskSpec) {
        let Some(flags) = &flags.isolation else { return };
        let IsolationSpec {
            preset,
            network,
            memory_max_bytes,
            pids_max,
            cpu_max_percent,
            rlimits: _,
        } = flags;
        let wishes = spec.isolation.get_or_insert_default();
        wishes.preset = preset.or(wishes.preset);
        wishes.network = network.or(wishes.network);
        wishes.memory_max_bytes = memory_max_bytes.or(wishes.memory_max_bytes);
        wishes.pids_max = pids_max.or(wishes.pids_max);
        wishes.cpu_max_percent = cpu_max_percent.or(wishes.cpu_max_percent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::parse_submission;
    use crate::wire::{Network, RlimitSpec};

    fn spec(args: &IsolationArgs) -> TaskSpec {
        let mut fields = Map::new();
        fields.insert("command".to_owned(), json!(["true"]));
        args.add(&mut fields);
        parse_submission(Value::Object(fields).to_string().as_bytes()).expect("a valid spec")
    }

    #[test]
    fn flags_make_the_wishes_that_a_file_would() {
        let args = IsolationArgs {
            isolation: Some(PresetArg::Strict),
            memory: Some("1GiB".to_owned()),
            pids: Some(100),
            cpu: Some("50%".to_owned()),
            network: Some(NetworkArg::None),
        };
        let wishes = IsolationSpec {
            preset: Some(Preset::Strict),
            network: Some(Network::None),
            memory_max_bytes: Some(1 << 30),
            pids_max: Some(100),
            cpu_max_percent: Some(50),
            rlimits: RlimitSpec::default(),
        };
        assert_eq!(spec(&args).isolation, Some(wishes));
        assert_eq!(spec(&IsolationArgs::default()).isolation, None);
    }

    #[test]
    fn flags_beat_a_files_wishes_only_where_they_say_something() {
        let rlimits = RlimitSpec { nofile: Some(64), ..RlimitSpec::default() };
        let mut file = TaskSpec::command("a", []);
        file.isolation =
            Some(IsolationSpec { pids_max: Some(5), rlimits, ..IsolationSpec::default() });
        let unchanged = file.clone();
        IsolationArgs::apply(&mut file, &spec(&IsolationArgs::default()));
        assert_eq!(file, unchanged);
        let flags = IsolationArgs { memory: Some("2MiB".to_owned()), ..IsolationArgs::default() };
        IsolationArgs::apply(&mut file, &spec(&flags));
        let wishes = file.isolation.expect("it has some");
        assert_eq!((wishes.pids_max, wishes.memory_max_bytes), (Some(5), Some(2 << 20)));
        assert_eq!(wishes.rlimits, rlimits);
    }
}

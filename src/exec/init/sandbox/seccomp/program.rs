//! From actions by system call number to a BPF program: a search tree over ranges of numbers.
//!
//! ```text
//! load arch ─► native? ─no─► kill
//!                │yes
//!           load number ─► tree: `number >= k` ─► … ─► allow | errno | tests of arguments
//! ```

use std::collections::BTreeMap;

use nix::libc::{self, sock_filter};

/// AUDIT_ARCH_X86_64 of linux/audit.h.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
/// AUDIT_ARCH_AARCH64 of linux/audit.h.
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;

/// The newest system call of Linux 6.18, file_setattr, on every architecture. What a later kernel adds,
/// and what no table could judge, it lacks for tasks: programs then fall back to what they did before.
/// The x32 numbers, which have bit 30, are above it too.
pub(super) const NEWEST: u32 = 469;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// It fails with this error number.
    Errno(i32),
    /// Its arguments decide.
    Ask(Rule),
}

/// The first clause whose tests all hold decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) clauses: &'static [Clause],
    pub(super) otherwise: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) all: &'static [Test],
    pub(super) then: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Errno(i32),
}

/// A test of an argument's low 32 bits; the kernel looks at no others of those that are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// The argument is this.
    Is(u32, u32),
    /// The argument's bits under the mask are this: argument, mask, value.
    Masked(u32, u32, u32),
    /// The argument has any of these bits.
    Any(u32, u32),
}

/// Where a branch of the tree goes.
#[derive(Clone, Copy)]
enum Target {
    Node(usize),
    Leaf(usize),
}

/// A node of the tree: the number to compare with, and where to go from it on, and below it.
#[derive(Clone, Copy)]
struct Node {
    number: u32,
    from: Target,
    below: Target,
}

/// Compiles a program that allows every call up to [`NEWEST`] that has no action.
pub(super) fn compile(arch: u32, actions: &BTreeMap<u32, Action>) -> Vec<sock_filter> {
    let mut tree = Tree { nodes: Vec::new(), leaves: Vec::new() };
    tree.grow(&ranges(actions));
    let mut program = vec![
        statement(LOAD, ARCH),
        jump(EQUAL, arch, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
    ];
    let first_node = program.len();
    let leaves: Vec<_> = tree.leaves.iter().map(|action| leaf(*action)).collect();
    let mut starts = Vec::new();
    let mut end = first_node + tree.nodes.len();
    for leaf in &leaves {
        starts.push(end);
        end += leaf.len();
    }
    for node in &tree.nodes {
        let next = program.len() + 1;
        let offset = |target| {
            let at = match target {
                Target::Node(index) => first_node + index,
                Target::Leaf(index) => starts[index],
            };
            u8::try_from(at - next)
                .expect("the table is short enough for BPF's jumps; a test compiles it")
        };
        program.push(jump(AT_LEAST, node.number, offset(node.from), offset(node.below)));
    }
    program.extend(leaves.into_iter().flatten());
    program
}

/// Where an action begins that holds up to the next one's beginning.
fn ranges(actions: &BTreeMap<u32, Action>) -> Vec<(u32, Action)> {
    let mut ranges = vec![(0, Action::Allow)];
    for (number, action) in actions {
        ranges.push((*number, *action));
        ranges.push((number + 1, Action::Allow));
    }
    ranges.push((NEWEST + 1, Action::Errno(libc::ENOSYS)));
    // Of two that begin together the later counts; one like its predecessor is no range of its own.
    let mut merged: Vec<(u32, Action)> = Vec::new();
    for (start, action) in ranges {
        while merged.last().is_some_and(|(last, _)| *last == start) {
            merged.pop();
        }
        if merged.last().is_none_or(|(_, last)| *last != action) {
            merged.push((start, action));
        }
    }
    merged
}

struct Tree {
    /// Parents before their children, because BPF only jumps forward.
    nodes: Vec<Node>,
    leaves: Vec<Action>,
}

impl Tree {
    fn grow(&mut self, ranges: &[(u32, Action)]) -> Target {
        let (below, from) = ranges.split_at(ranges.len() / 2);
        let [(number, action), ..] = from else { unreachable!("there is always the first range") };
        if below.is_empty() {
            return self.leaf(*action);
        }
        let index = self.nodes.len();
        let placeholder = Target::Leaf(0);
        self.nodes.push(Node { number: *number, from: placeholder, below: placeholder });
        self.nodes[index].below = self.grow(below);
        self.nodes[index].from = self.grow(from);
        Target::Node(index)
    }

    fn leaf(&mut self, action: Action) -> Target {
        let known = self.leaves.iter().position(|leaf| *leaf == action);
        Target::Leaf(known.unwrap_or_else(|| {
            self.leaves.push(action);
            self.leaves.len() - 1
        }))
    }
}

fn leaf(action: Action) -> Vec<sock_filter> {
    match action {
        Action::Allow => vec![verdict(Verdict::Allow)],
        Action::Errno(errno) => vec![verdict(Verdict::Errno(errno))],
        Action::Ask(rule) => {
            let mut code: Vec<_> = rule.clauses.iter().flat_map(clause).collect();
            code.push(verdict(rule.otherwise));
            code
        }
    }
}

fn clause(clause: &Clause) -> Vec<sock_filter> {
    let tests: Vec<_> = clause.all.iter().map(|test| instructions(*test)).collect();
    // A test that fails goes past the clause's verdict.
    let mut left: usize = tests.iter().map(Vec::len).sum();
    let mut code = Vec::new();
    for mut instruction in tests.into_iter().flatten() {
        left -= 1;
        if matches!(instruction.code, EQUAL | ANY_BIT) {
            instruction.jf = u8::try_from(left + 1).expect("a clause is short");
        }
        code.push(instruction);
    }
    code.push(verdict(clause.then));
    code
}

fn instructions(test: Test) -> Vec<sock_filter> {
    let load = |argument: u32| statement(LOAD, ARGUMENTS + 8 * argument);
    match test {
        Test::Is(argument, value) => vec![load(argument), jump(EQUAL, value, 0, 0)],
        Test::Masked(argument, mask, value) => {
            vec![load(argument), statement(AND, mask), jump(EQUAL, value, 0, 0)]
        }
        Test::Any(argument, mask) => vec![load(argument), jump(ANY_BIT, mask, 0, 0)],
    }
}

fn verdict(verdict: Verdict) -> sock_filter {
    match verdict {
        Verdict::Allow => statement(RETURN, libc::SECCOMP_RET_ALLOW),
        Verdict::Errno(errno) => statement(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
    }
}

fn statement(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

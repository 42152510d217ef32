//! The console's lines, and what they say about the cases.
//!
//! A line counts only with the run's nonce in front: `<nonce> case <name> ok`, `<nonce> case <name>
//! FAILED <why>`, and at the end `<nonce> verdict <passed> <failed>`.

use std::collections::BTreeMap;

use super::guest::Tier;

/// What the guest has said so far.
#[derive(Debug)]
pub(crate) struct Judge {
    tier: Tier,
    nonce: String,
    /// By case: None if it passed, or why it failed.
    pub(crate) results: BTreeMap<String, Option<String>>,
    verdict: Option<(usize, usize)>,
}

impl Judge {
    pub(crate) fn new(tier: Tier, nonce: &str) -> Self {
        Self { tier, nonce: nonce.to_owned(), results: BTreeMap::new(), verdict: None }
    }

    /// Takes a line of the console. Returns what to print of it.
    pub(crate) fn hear(&mut self, line: &str) -> Option<String> {
        // The kernel may have written something in front of it.
        let (_, said) = line.split_once(&self.nonce)?;
        let mut words = said.trim_start().splitn(3, ' ');
        match (words.next()?, words.next()?, words.next()?) {
            ("case", name, result) => {
                let failure = (!result.starts_with("ok")).then(|| result.to_owned());
                self.results.insert(name.to_owned(), failure);
                Some(format!("test {name} ... {result}"))
            }
            ("verdict", passed, failed) => {
                self.verdict = Some((passed.parse().ok()?, failed.parse().ok()?));
                None
            }
            ("kernel", release, _) => {
                let (tier, has) = (self.tier.number(), self.tier.has());
                Some(format!("tier {tier} runs: Linux {release} in qemu, with {has}"))
            }
            ("guest", _, _) => Some(said.trim_start().to_owned()),
            _ => None,
        }
    }

    /// Every wanted case's failure, also of those that said nothing, and of the machine.
    pub(crate) fn failures(&self, wanted: &[&str]) -> Vec<(String, String)> {
        let mut failures: Vec<_> = wanted
            .iter()
            .filter_map(|name| match self.results.get(*name) {
                Some(None) => None,
                Some(Some(why)) => Some(((*name).to_owned(), why.clone())),
                None => Some(((*name).to_owned(), "said nothing".to_owned())),
            })
            .collect();
        let failed = self.results.values().flatten().count();
        if self.verdict != Some((self.results.len() - failed, failed)) {
            failures.push(("the machine".to_owned(), format!("verdict {:?}", self.verdict)));
        }
        failures
    }
}

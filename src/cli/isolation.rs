//! What this host can do for isolation, and what the runners of a configuration get of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::exit::{CONFIG, FAILED, Failure};
use super::{settings, worker};
use crate::config::{Auth, CgroupBase, Config, SecretSource};
use crate::exec::cgroup::{Base, CgroupSetting};
use crate::exec::{self, WorkRoot};
use crate::task::{Feature, Host, IsolationPolicy, RunnerIsolation, Unsupported};
use crate::wire::Preset;

/// What this host offers, and what of it this program holds.
pub(super) struct ThisHost {
    pub(super) host: Arc<Host>,
    /// The cgroup for tasks, if there is one.
    base: Option<Base>,
}

impl ThisHost {
    /// Finds out what this host offers. A cgroup is taken over for it, until this is dropped.
    ///
    /// # Errors
    /// The cgroup that the configuration names can't be used, or nothing can be tried.
    pub(super) fn probe(setting: &CgroupBase) -> Result<Self, Failure> {
        let (base, missing) = match setting {
            CgroupBase::None => {
                let why = "worker.cgroup is \"none\"";
                let missing = Feature::CGROUP.map(|feature| (feature, why.to_owned()));
                (None, BTreeMap::from(missing))
            }
            CgroupBase::Auto => match Base::open(&CgroupSetting::Auto) {
                Ok(base) => taken(base),
                Err(error) => (None, error.missing()),
            },
            CgroupBase::At(directory) => {
                let base = Base::open(&CgroupSetting::Directory(directory.clone()));
                taken(base.map_err(|error| {
                    Failure::new(CONFIG, format!("worker.cgroup can't be used: {error}"))
                })?)
            }
        };
        let leaves = base.as_ref().map(|base| base.leaves().to_owned());
        let host = exec::probe(exec::THIS_PROGRAM.as_ref(), leaves, missing).map_err(|error| {
            Failure::new(FAILED, format!("can't find out what this host offers: {error}"))
        })?;
        Ok(Self { host: Arc::new(host.host), base })
    }
}

fn taken(base: Base) -> (Option<Base>, BTreeMap<Feature, String>) {
    for stale in base.stale() {
        let (path, errno) = (stale.directory.display(), stale.errno);
        tracing::warn!(%path, %errno, "cannot remove the cgroup that a dead worker left");
    }
    let missing = base.missing().clone();
    (Some(base), missing)
}

impl Drop for ThisHost {
    fn drop(&mut self) {
        if let Some(base) = self.base.take() {
            base.close();
        }
    }
}

/// The isolation of each runner, on the host that it is for.
pub(super) struct Fitted {
    /// What the host offers; its cgroup is held.
    host: ThisHost,
    /// One for each runner of the configuration, in its order.
    pub(super) runners: Vec<RunnerIsolation>,
    /// Where work directories are made, if they can be.
    _work_root: Option<WorkRoot>,
}

/// Fits the runners of a configuration, which is in a file or isn't, to this host.
///
/// # Errors
/// Every feature that a runner requires and the host lacks.
pub(super) fn fit(config: &Config, file: Option<&Path>) -> Result<Fitted, Failure> {
    let this = ThisHost::probe(&config.worker.cgroup)?;
    let work_root = WorkRoot::open(&config.worker.work_root);
    let private = private_files(config, file);
    let mut runners = Vec::new();
    let mut refused = Vec::new();
    for runner in &config.worker.runners {
        let mut policy = runner.isolation.clone();
        policy.private.clone_from(&private);
        match &work_root {
            Ok(root) => policy.move_work_to(Some(root.path())),
            Err(error) if policy.sandbox.enclosure.work_root.is_some() => {
                let remedy = "name another directory as worker.work_root, or set work_dir = false";
                return Err(Failure::new(CONFIG, format!("{error}; {remedy}")));
            }
            Err(_) => policy.move_work_to(None),
        }
        match RunnerIsolation::new(policy, Arc::clone(&this.host)) {
            Ok(isolation) => runners.push(isolation),
            Err(unsupported) => refused.push((runner.name.as_str(), unsupported)),
        }
    }
    if refused.is_empty() {
        Ok(Fitted { host: this, runners, _work_root: work_root.ok() })
    } else {
        Err(refusal(&refused))
    }
}

/// Where the worker's credentials are, the ends of other tasks, and the work directories of all.
fn private_files(config: &Config, file: Option<&Path>) -> Vec<PathBuf> {
    let login = match &config.nats.auth {
        Auth::CredsFile(path) | Auth::NkeySeedFile(path) => Some(path.clone()),
        Auth::UserPassword { password: SecretSource::File(path), .. }
        | Auth::Token(SecretSource::File(path)) => Some(path.clone()),
        Auth::None | Auth::UserPassword { .. } | Auth::Token(_) => None,
    };
    let key = config.nats.tls.client.as_ref().map(|client| client.key.clone());
    let contexts = config.nats.context.as_ref().and_then(|_| settings::contexts().ok());
    let contexts = contexts.map(|contexts| contexts.directory().to_owned());
    // One directory for all namespaces. It may be made when the first end is kept.
    let state = worker::state_dir(config);
    let state = state.as_deref().and_then(Path::parent).map(Path::to_owned);
    if let Some(state) = &state {
        // If it can't be made, nothing can be kept in it, which the worker tells when it happens.
        std::fs::create_dir_all(state).ok();
    }
    let work = config.worker.work_root.clone();
    let all = login.into_iter().chain(key).chain(contexts).chain(state).chain([work]);
    // The task's process that hides them is in another directory.
    all.chain(file.map(Path::to_owned)).filter_map(|path| std::path::absolute(path).ok()).collect()
}

fn refusal(refused: &[(&str, Vec<Unsupported>)]) -> Failure {
    let mut text = "this host can't isolate tasks as configured".to_owned();
    for (runner, unsupported) in refused {
        for sentence in Unsupported::sentences(unsupported) {
            text.push_str(&format!("\n  runner {runner}: {sentence}"));
        }
    }
    text.push_str(
        "\nlist what may be missing in `best_effort` of [runner.sandbox], or choose a weaker preset \
         with `isolation` or --isolation",
    );
    Failure::new(CONFIG, text)
}

impl Fitted {
    /// What the host offers.
    pub(super) fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host.host)
    }

    /// Logs what tasks do without.
    pub(super) fn log(&self, config: &Config) {
        for (runner, isolation) in config.worker.runners.iter().zip(&self.runners) {
            for (feature, why) in &isolation.resolved().missing {
                let (runner, preset) = (&runner.name, isolation.preset());
                tracing::warn!(%runner, %preset, %feature, %why, "tasks do without a feature");
            }
        }
    }
}

/// What a policy comes to on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// Its preset.
    pub(super) preset: Preset,
    /// Whether tasks can run.
    pub(super) ok: bool,
    /// Features that are left out, or, if it isn't ok, that are refused; and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) missing: BTreeMap<String, String>,
}

impl Verdict {
    pub(super) fn of(policy: &IsolationPolicy, host: &Host) -> Self {
        let (ok, missing) = match policy.resolve(host) {
            Ok(resolved) => (true, resolved.missing.into_iter().collect::<Vec<_>>()),
            Err(refused) => (false, refused.into_iter().map(|it| (it.feature, it.why)).collect()),
        };
        let missing = missing.into_iter().map(|(feature, why)| (feature.to_string(), why));
        Self { preset: policy.preset, ok, missing: missing.collect() }
    }

    /// `ok`, and what is left out, or `refused` and what for.
    pub(super) fn text(&self) -> String {
        let listed: Vec<String> =
            self.missing.iter().map(|(feature, why)| format!("{feature}: {why}")).collect();
        let listed = listed.join("; ");
        match (self.ok, listed.is_empty()) {
            (true, true) => "ok".to_owned(),
            (true, false) => format!("ok, without {listed}"),
            (false, _) => format!("refused: {listed}"),
        }
    }
}

/// What each preset comes to on a host.
pub(super) fn presets(host: &Host, work_root: &Path) -> Vec<Verdict> {
    let presets = [Preset::None, Preset::Standard, Preset::Strict];
    let policy = |preset| IsolationPolicy::preset(preset, Some(work_root.to_owned()));
    presets.map(|preset| Verdict::of(&policy(preset), host)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn host(missing: &[(Feature, &str)]) -> Host {
        let missing = missing.iter().map(|(feature, why)| (*feature, (*why).to_owned())).collect();
        Host { missing, cgroup: Some("/c".into()), needs_user_namespace: false }
    }

    #[test]
    fn the_workers_secrets_are_private() {
        let mut raw = RawConfig::default();
        raw.nats.creds = Some("/c".into());
        raw.nats.tls.cert = Some("/t".into());
        raw.nats.tls.key = Some("/k".into());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = directory.path().to_str().expect("it is text");
        raw.worker.state_dir = Some(state.into());
        raw.worker.work_root = Some("/w".into());
        let files = |raw: &RawConfig| {
            let config = Config::load(None, raw.clone()).expect("a valid configuration");
            private_files(&config, Some(Path::new("/f")))
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(files(&raw), paths(&["/c", "/k", state, "/w", "/f"]));
        for (field, file) in [("token_file", "/p"), ("nkey", "/n")] {
            raw.nats = Default::default();
            match field {
                "nkey" => raw.nats.nkey = Some(file.into()),
                _ => raw.nats.token_file = Some(file.into()),
            }
            assert_eq!(files(&raw)[0], PathBuf::from(file));
        }
        raw.nats = Default::default();
        raw.nats.user = Some("u".to_owned());
        raw.nats.password_file = Some("/p".into());
        assert_eq!(files(&raw)[0], PathBuf::from("/p"));
    }

    #[test]
    fn each_preset_says_whether_it_can_be_used_and_what_it_lacks() {
        let texts = |host: &Host| {
            presets(host, Path::new("/w")).iter().map(Verdict::text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&host(&[])), ["ok", "ok", "ok"]);
        let lacking =
            host(&[(Feature::Landlock, "Linux 5.13"), (Feature::PidNamespace, "no root")]);
        assert_eq!(
            texts(&lacking),
            [
                "ok",
                "ok, without landlock: Linux 5.13; landlock.scope: Linux 5.13",
                "refused: landlock: Linux 5.13; namespaces.pid: no root",
            ]
        );
    }

    #[test]
    fn a_refusal_names_runner_feature_reason_and_remedy() {
        let unsupported = Unsupported { feature: Feature::Seccomp, why: "not built in".to_owned() };
        let failure = refusal(&[("build", vec![unsupported])]);
        let text = failure.message.expect("a sentence");
        assert_eq!(failure.code, CONFIG);
        for part in ["runner build", "seccomp", "not built in", "best_effort", "--isolation"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

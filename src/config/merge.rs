//! One [`RawConfig`] over another: what the upper one says wins, key by key.

use super::raw::{
    RawConfig, RawLog, RawMetrics, RawNats, RawRunner, RawStreams, RawTls, RawWorker,
};
use crate::wire::Preset;

/// Takes each listed key from the upper value, else from the lower one.
macro_rules! over {
    ($type:ident, $upper:expr, $lower:expr, $($key:ident),+; $($rest:ident: $value:expr),*) => {
        $type { $($key: $upper.$key.or($lower.$key),)+ $($rest: $value,)* }
    };
}

impl RawConfig {
    /// Puts `self` over `lower`. Labels are merged by name; runners replace runners, and any way to
    /// prove who one is replaces every other one. A user alone, or a password alone, replaces that half.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            namespace: self.namespace.or(lower.namespace),
            nats: nats(self.nats, lower.nats),
            worker: worker(self.worker, lower.worker),
            runner: if self.runner.is_empty() { lower.runner } else { self.runner },
            streams: over!(RawStreams, self.streams, lower.streams, replicas, storage,
                tasks_max_age, output_max_age, output_max_bytes, queue_max_bytes;),
            metrics: over!(RawMetrics, self.metrics, lower.metrics, listen;),
            log: over!(RawLog, self.log, lower.log, filter, format;),
        }
    }
}

impl RawConfig {
    /// Gives every runner a preset, in place of its own.
    #[must_use]
    pub fn with_isolation(mut self, preset: Preset) -> Self {
        if self.runner.is_empty() {
            self.runner.push(RawRunner::unconfigured());
        }
        for runner in &mut self.runner {
            runner.isolation = Some(preset.to_string());
        }
        self
    }
}

impl RawRunner {
    /// The one runner of a worker without runners in its configuration.
    pub(super) fn unconfigured() -> Self {
        Self { name: Some("default".to_owned()), ..Self::default() }
    }
}

fn nats(upper: RawNats, lower: RawNats) -> RawNats {
    let mut lower = match upper.half_a_login() {
        Some(Half::User) => RawNats { user: None, ..lower },
        Some(Half::Password) => RawNats { password: None, password_file: None, ..lower },
        None if upper.has_auth() => lower.without_auth(),
        None => lower,
    };
    let (tls, below) = (upper.tls.clone(), std::mem::take(&mut lower.tls));
    let tls = over!(RawTls, tls, below, ca, cert, key, required, first;);
    over!(RawNats, upper, lower, servers, context, creds, nkey, user, password, password_file,
        token, token_file, inbox_prefix; tls: tls)
}

fn worker(upper: RawWorker, lower: RawWorker) -> RawWorker {
    let mut labels = lower.labels;
    labels.extend(upper.labels);
    over!(RawWorker, upper, lower, name, capacity, lease, drain_timeout, max_lanes, manage_streams, state_dir,
        cgroup, work_root;
        labels: labels)
}

/// One half of a user with a password: the other one may be in a lower place, such as a file beside a
/// password in the environment.
enum Half {
    User,
    Password,
}

impl RawNats {
    fn half_a_login(&self) -> Option<Half> {
        let half = Self { user: None, password: None, password_file: None, ..self.clone() };
        if half.has_auth() {
            return None;
        }
        let has_password = self.password.is_some() || self.password_file.is_some();
        match (self.user.is_some(), has_password) {
            (true, false) => Some(Half::User),
            (false, true) => Some(Half::Password),
            (true, true) | (false, false) => None,
        }
    }

    fn has_auth(&self) -> bool {
        self.clone().without_auth() != *self
    }

    fn without_auth(self) -> Self {
        Self {
            creds: None,
            nkey: None,
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawConfig {
        toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_upper_value_wins_key_by_key() {
        let file = raw("namespace='a'\n[worker]\nlease='5s'\ncapacity=2\nlabels={a='1',b='1'}");
        let flags = raw("[worker]\ncapacity=3\nlabels={b='2'}\n[log]\nfilter='debug'");
        let wanted = raw(
            "namespace='a'\n[worker]\nlease='5s'\ncapacity=3\nlabels={a='1',b='2'}\n[log]\nfilter='debug'",
        );
        assert_eq!(flags.over(file), wanted);
    }

    #[test]
    fn a_preset_for_all_beats_that_of_each_runner() {
        let presets = |raw: RawConfig| {
            let runners = raw.with_isolation(Preset::Strict).runner.into_iter();
            runners.map(|runner| (runner.name, runner.isolation)).collect::<Vec<_>>()
        };
        let strict = |name: &str| (Some(name.to_owned()), Some("strict".to_owned()));
        assert_eq!(presets(raw("")), [strict("default")]);
        let two = raw("[[runner]]\nname = 'a'\nisolation = 'none'\n[[runner]]\nname = 'b'");
        assert_eq!(presets(two), [strict("a"), strict("b")]);
    }

    #[test]
    fn a_flags_credentials_replace_the_files() {
        let file = raw("[nats]\nuser='u'\npassword='p'\nservers=['a']");
        let flags = raw("[nats]\ncreds='/c'");
        assert_eq!(flags.over(file), raw("[nats]\ncreds='/c'\nservers=['a']"));
    }

    #[test]
    fn half_a_login_goes_with_the_other_half_below() {
        let password = || raw("[nats]\npassword='new'");
        let file = raw("[nats]\nuser='u'\npassword_file='/p'");
        assert_eq!(password().over(file), raw("[nats]\nuser='u'\npassword='new'"));
        let file = raw("[nats]\nuser='u'\npassword_file='/p'");
        let user = raw("[nats]\nuser='me'");
        assert_eq!(user.over(file), raw("[nats]\nuser='me'\npassword_file='/p'"));
        // Two ways to log in are an error, and not one that is chosen in silence.
        let file = raw("[nats]\ncreds='/c'");
        assert_eq!(password().over(file), raw("[nats]\ncreds='/c'\npassword='new'"));
    }
}

//! How costs grow: one thing becomes more, from one to many, and the rest stays as it is.
//!
//! | file | what becomes more | worker |
//! |---|---|---|
//! | `lanes` | lanes of one worker | 8 places |
//! | `queued` | tasks that wait | 8 places |
//! | `finished` | finished tasks whose records are kept | 8 places |
//! | `workers` | workers on this machine | 2 places each |
//! | `running` | tasks that run at once in one worker | as many places |
//! | `followers` | live readers of one task | 2 places |
//! | `chunks` | bytes that a program writes at once | 2 places |

mod chunks;
mod finished;
mod followers;
mod lanes;
mod queued;
mod running;
mod workers;

use std::time::Duration;

use super::helper::TRUE;
use super::proc::rss_bytes;
use super::stats::per_second;
use super::throughput::backlog;
use super::{BenchError, Curve, Progress, Site};
use crate::wire::TaskSpec;

/// Places of the worker where they don't grow.
const PLACES: usize = 8;

/// What becomes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growing {
    /// Lanes of one worker.
    Lanes,
    /// Tasks that wait.
    Queued,
    /// Finished tasks whose records are kept.
    Finished,
    /// Workers on this machine.
    Workers,
    /// Tasks that run at once in one worker.
    Running,
    /// Live readers of one task.
    Followers,
    /// Bytes that a program writes at once.
    Chunks,
}

impl Growing {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Lanes,
        Self::Queued,
        Self::Finished,
        Self::Workers,
        Self::Running,
        Self::Followers,
        Self::Chunks,
    ];
}

/// How growth is measured.
#[derive(Debug, Clone)]
pub struct GrowthOptions {
    /// What grows; each gives a curve.
    pub what: Vec<Growing>,
    /// How far.
    pub reach: Reach,
}

/// How far things grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To sizes of large installations; takes many minutes.
    Full,
    /// To a hundredth of that, about.
    Quick,
    /// Two small sizes of each, to see that it works.
    Tiny,
}

impl Reach {
    /// The sizes for this reach.
    fn of<'a>(self, full: &'a [usize], quick: &'a [usize], tiny: &'a [usize]) -> &'a [usize] {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Tiny => tiny,
        }
    }

    /// Tasks that one rate is measured with.
    fn tasks(self) -> usize {
        match self {
            Self::Full => 2000,
            Self::Quick => 300,
            Self::Tiny => 20,
        }
    }

    /// Tasks that one latency is measured with.
    fn singles(self) -> usize {
        match self {
            Self::Full => 100,
            Self::Quick => 20,
            Self::Tiny => 3,
        }
    }

    /// How long CPU time is counted: at full reach longer than leases are renewed.
    fn watch(self) -> Duration {
        match self {
            Self::Full => Duration::from_secs(12),
            Self::Quick => Duration::from_secs(3),
            Self::Tiny => Duration::from_millis(200),
        }
    }
}

/// Measures curves, each on a namespace without tasks.
///
/// # Errors
/// As the scenarios; the workers must be the site's own.
pub async fn growth(
    site: &mut Site,
    options: &GrowthOptions,
    progress: Progress<'_>,
) -> Result<Vec<Curve>, BenchError> {
    let reach = options.reach;
    let mut curves = Vec::new();
    for growing in &options.what {
        let curve = match growing {
            Growing::Lanes => lanes::measure(site, reach, progress).await?,
            Growing::Queued => queued::measure(site, reach, progress).await?,
            Growing::Finished => finished::measure(site, reach, progress).await?,
            Growing::Workers => workers::measure(site, reach, progress).await?,
            Growing::Running => running::measure(site, reach, progress).await?,
            Growing::Followers => followers::measure(site, reach, progress).await?,
            Growing::Chunks => chunks::measure(site, reach, progress).await?,
        };
        site.without_worker().await?;
        site.clear().await?;
        curves.push(curve);
    }
    Ok(curves)
}

fn step(progress: Progress<'_>, curve: &Curve, size: usize) {
    progress(&format!("growth: {} = {size}", curve.name));
}

/// Tasks of /bin/true per second.
async fn tasks_per_second(site: &mut Site, tasks: usize) -> Result<f64, BenchError> {
    let specs = std::iter::repeat_n(TaskSpec::command(TRUE, []), tasks);
    let (time, _) = backlog(site, specs).await?;
    Ok(per_second(tasks, time))
}

/// The server's resident memory in 10^6 bytes.
#[allow(clippy::cast_precision_loss)]
fn server_megabytes(site: &Site) -> Option<f64> {
    site.server_pid().and_then(rss_bytes).map(|bytes| bytes as f64 / 1e6)
}

//! Short forms of a task's wishes for isolation.

use serde_json::{Map, Value, json};

use super::duration::parse_duration;
use super::path::Path;
use super::problems::Problems;
use super::short::rename;
use super::size::parse_size;

/// Short and long names.
pub(super) const NAMES: [(&str, &str); 3] =
    [("memory", "memoryMaxBytes"), ("pids", "pidsMax"), ("cpu", "cpuMaxPercent")];

/// Expands the field `isolation` of a spec.
pub(super) fn expand(fields: &mut Map<String, Value>, problems: &mut Problems) {
    let root = Path::Root;
    let path = root.field("isolation");
    let wishes = match fields.get_mut("isolation") {
        Some(preset @ Value::String(_)) => {
            *preset = json!({ "preset": preset });
            return;
        }
        Some(Value::Object(wishes)) => wishes,
        Some(_) | None => return,
    };
    for (short, long) in NAMES {
        rename(wishes, short, long, &path, problems);
    }
    number(wishes, "memoryMaxBytes", &path, problems, size);
    number(wishes, "cpuMaxPercent", &path, problems, percent);
    if let Some(Value::Object(limits)) = wishes.get_mut("rlimits") {
        let path = path.field("rlimits");
        for name in ["as", "core", "fsize", "memlock", "stack"] {
            number(limits, name, &path, problems, size);
        }
        number(limits, "cpu", &path, problems, seconds);
    }
}

/// Turns a text into the number that it stands for.
fn number(
    fields: &mut Map<String, Value>,
    name: &str,
    path: &Path<'_>,
    problems: &mut Problems,
    read: fn(&str) -> Result<u64, String>,
) {
    let Some(Value::String(text)) = fields.get(name) else {
        return;
    };
    match read(text) {
        Ok(number) => drop(fields.insert(name.to_owned(), number.into())),
        Err(why) => {
            problems.add(path.field(name), why);
            // Nothing else is to be said of it.
            fields.remove(name);
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let cut: String = text.chars().take(64).collect();
    parse_size(text).ok_or_else(|| format!("{cut:?} is not a size; write it like 64KiB or 10GiB"))
}

fn percent(text: &str) -> Result<u64, String> {
    let cut: String = text.chars().take(64).collect();
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    number
        .ok_or_else(|| format!("{cut:?} is not a share; write it like 50%, where 100% is one CPU"))
}

fn seconds(text: &str) -> Result<u64, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    Ok(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

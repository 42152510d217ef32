//! Where a report goes: JSON or tables on stdout, a file, pictures.

use std::path::Path;

use super::super::exit::{FAILED, Failure};
use super::super::global::GlobalArgs;
use super::super::say;
use super::{CommonArgs, text};
use crate::bench::Report;

/// Prints a report as asked; one that is written to a file is also shown as a table.
pub(super) fn show(
    global: &GlobalArgs,
    common: &CommonArgs,
    file: Option<&Path>,
    report: &Report,
) -> Result<(), Failure> {
    match file.filter(|file| file.as_os_str() != "-") {
        None if global.json => return say::json(report),
        None => {}
        Some(file) => {
            let json = serde_json::to_vec_pretty(report).expect("a report is plain JSON");
            write(file, &json)?;
        }
    }
    let table = if common.markdown { text::markdown(report) } else { text::plain(report) };
    say::out(table.as_bytes())
}

/// Writes a picture of each curve.
pub(super) fn draw(dir: &Path, report: &Report) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::new(FAILED, format!("cannot make {}: {error}", dir.display())))?;
    for curve in &report.growth {
        write(&dir.join(format!("{}.svg", curve.name)), curve.svg().as_bytes())?;
    }
    Ok(())
}

fn write(file: &Path, content: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, content)
        .map_err(|error| Failure::new(FAILED, format!("cannot write {}: {error}", file.display())))
}

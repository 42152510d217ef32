//! What README, docs, examples and deploy say is what the program does: links, subjects, commands, exit
//! codes, lanes, metrics, keys, specs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runlane::task::parse_submission;
use runlane::wire::{
    ControlRequest, Kind, LaneId, LaneRecord, Selector, Stream, Subjects, TaskId, Timer, WorkerId,
};

mod isolation;

const PAGES: [&str; 9] = [
    "README.md",
    "CHANGELOG.md",
    "docs/protocol.md",
    "docs/configuration.md",
    "docs/operations.md",
    "docs/decisions.md",
    "docs/guarantees.md",
    "docs/isolation.md",
    "docs/performance.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files below a folder, at any depth.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} has files");
    found
}

/// The rows of the table below a heading, each as its cells.
pub(crate) fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let section = text.split_once(&format!("\n{heading}\n"));
    let (_, section) = section.unwrap_or_else(|| panic!("{page} has the heading {heading}"));
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| cells(row).collect()).collect()
}

fn cells(row: &str) -> impl Iterator<Item = String> {
    let row = row.replace("\\|", "\u{1}");
    let cells: Vec<_> =
        row.trim_matches('|').split('|').map(|c| c.trim().replace('\u{1}', "|")).collect();
    cells.into_iter()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn help(arguments: &[&str]) -> String {
    let mut runlane = Command::new(env!("CARGO_BIN_EXE_runlane"));
    let output = runlane.args(arguments).output().expect("runlane starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut links = 0;
    for page in PAGES {
        let text = read(page);
        let folder = root().join(page).parent().expect("a file has a folder").to_owned();
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().expect("a split has a first part");
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(page) } else { folder.join(file) };
            assert!(target.exists(), "{page}: {link}");
            if !heading.is_empty() {
                let target = fs::read_to_string(target).expect("a page");
                let found = target.lines().any(|l| l.starts_with('#') && anchor(l) == heading);
                assert!(found, "{page}: {link}");
            }
        }
    }
    assert!(links > 20, "{links} links were seen");
}

#[test]
fn file_names_in_texts_are_there() {
    let folders = ["docs/", "examples/", "deploy/", "schemas/", "src/", "tests/"];
    for page in PAGES {
        for name in quoted(&read(page).replace("```", "")) {
            let is_path = folders.iter().any(|folder| name.starts_with(folder));
            if is_path && !name.contains(['*', ' ', '<']) {
                assert!(root().join(name).exists(), "{page}: {name}");
            }
        }
    }
}

#[test]
fn the_subjects_tables_are_those_of_the_program() {
    let names = Subjects::default();
    let id: TaskId = "ID".parse().expect("an id");
    let lane: LaneId = "LANE".parse().expect("a lane");
    let worker: WorkerId = "WORKER".parse().expect("a worker");
    let outputs = Stream::ALL.map(|stream| (names.output(&id, stream), names.output_stream()));
    let mut wanted: BTreeSet<_> = [
        (names.submit(), String::new()),
        (names.worker_control(&worker), String::new()),
        (names.queue(&lane, &id), names.queue_stream()),
        (names.status(&id), names.tasks_stream()),
        (names.cancel(&id), names.tasks_stream()),
        (names.outcome(&id), names.tasks_stream()),
        (names.spec(&id), names.tasks_stream()),
    ]
    .into();
    wanted.extend(outputs);
    for timer in [Timer::Start, Timer::Expire, Timer::Purge] {
        wanted.insert((names.schedule(&id, timer), names.schedule_stream()));
        wanted.insert((names.due(&id, timer), names.schedule_stream()));
    }
    for (page, heading) in [("README.md", "## Subjects"), ("docs/protocol.md", "## Names")] {
        let mut found = BTreeSet::new();
        for row in table(page, heading) {
            let stream = quoted(&row[1]).first().copied().unwrap_or_default();
            for subject in quoted(&row[0]).into_iter().filter(|s| !s.starts_with("$KV")) {
                let subject = subject.replace("<id>", "ID");
                let subject = subject.replace("<lane>", "LANE").replace("<worker>", "WORKER");
                found.insert((subject, stream.to_owned()));
            }
        }
        assert_eq!(found, wanted, "{page}");
    }
}

#[test]
fn the_table_of_commands_has_every_verb() {
    let help = help(&["--help"]);
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| line.starts_with(' ') || line.is_empty());
    // A verb stands two spaces in, its description further in or after it.
    let verbs = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs: BTreeSet<_> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    let rows = table("README.md", "## Commands");
    let named: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| quoted(&row[0]))
        .filter_map(|command| command.split_whitespace().nth(1))
        .chain(["help"])
        .collect();
    assert_eq!(named, verbs);
}

#[test]
fn every_flag_in_the_table_of_commands_is_one_of_its_verb() {
    let mut flags = 0;
    for row in table("README.md", "## Commands") {
        let commands = quoted(&row[0]);
        let verb = commands[0].split_whitespace().nth(1).expect("`runlane` and a verb");
        let help = help(&[verb, "--help"]);
        for word in row.join(" ").split([' ', '[', ']', '|', '`', ',', ';', '\\']) {
            if word.starts_with("--") && word.len() > 2 {
                flags += 1;
                assert!(help.contains(word), "runlane {verb} has no {word}");
            }
        }
    }
    assert!(flags > 8, "{flags} flags were seen");
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let help = help(&["--help"]);
    let codes = help.lines().skip_while(|line| *line != "Exit codes:").skip(1);
    let codes = codes.take_while(|line| !line.is_empty());
    let codes: Vec<_> = codes.filter_map(|line| line.trim().split_once(' ')).collect();
    let rows = table("README.md", "### Exit codes");
    assert_eq!(rows.len(), codes.len());
    for (row, (code, meaning)) in rows.iter().zip(codes) {
        assert_eq!(row[0], code);
        assert!(meaning.trim().starts_with(&row[1]), "{code}: {} | {meaning}", row[1]);
    }
}

#[test]
fn the_lanes_of_the_protocol_page_are_ours() {
    let rows = table("docs/protocol.md", "### Lanes");
    assert!(rows.len() > 4, "the table is there");
    for row in rows {
        let kind: Kind = serde_json::from_value(row[0].as_str().into()).expect("a kind");
        let selector = quoted(&row[1]).first().copied().unwrap_or_default();
        let selector: Selector = selector.parse().expect("a selector");
        let id = LaneRecord::new(kind, &selector).id();
        assert_eq!(quoted(&row[2]), [id.as_str()], "{}", row[1]);
    }
}

#[test]
fn the_table_of_the_task_spec_has_every_field() {
    let schema = read("schemas/task-spec.json");
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let fields = schema["properties"].as_object().expect("a spec has fields");
    assert!(fields.len() > 15, "{} fields were seen", fields.len());
    let rows = table("docs/protocol.md", "## The task spec");
    let named: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| quoted(&row[0]))
        .filter_map(|name| name.split('.').next())
        .collect();
    for field in fields.keys().filter(|field| *field != "id") {
        assert!(named.contains(field.as_str()), "{field} is not in the table");
    }
}

#[test]
fn every_request_to_a_worker_on_the_page_is_one_and_none_is_missing() {
    let rows = table("docs/protocol.md", "## Control of workers");
    let mut actions = BTreeSet::new();
    for row in &rows {
        let text = quoted(&row[0]).first().copied().expect("a request").to_owned();
        serde_json::from_str::<ControlRequest>(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let request: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        actions.insert(request["action"].as_str().expect("an action").to_owned());
    }
    let schema = read("schemas/control-request.json");
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let kinds = schema["oneOf"].as_array().expect("actions");
    let wanted = kinds.iter().filter_map(|kind| kind["properties"]["action"]["const"].as_str());
    assert_eq!(actions, wanted.map(str::to_owned).collect());
}

#[test]
fn metrics_in_docs_and_dashboards_are_those_of_the_program() {
    let source = read("src/telemetry/metrics.rs");
    let consts = source.lines().filter(|line| line.starts_with("pub const"));
    let ours: BTreeSet<_> = consts.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(ours.len() > 10, "{ours:?}");
    let rows = table("docs/operations.md", "## Metrics and health");
    assert_eq!(rows.len(), 3, "the table of paths comes first");
    let page = read("docs/operations.md");
    for name in &ours {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is documented");
    }
    let grafana = read("deploy/grafana/runlane.json");
    serde_json::from_str::<serde_json::Value>(&grafana).expect("JSON");
    for text in [&page, &grafana, &read("deploy/prometheus/alerts.yml")] {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            if name.starts_with("runlane_") {
                assert!(ours.contains(name), "{name} is no metric");
            }
        }
    }
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let page = read("docs/configuration.md");
    let mut keys = 0;
    for line in read("examples/worker.toml").lines() {
        let line = line.trim_start_matches('#');
        let Some((key, _)) = line.split_once(" = ") else { continue };
        // Not prose, and not an example's label or variable.
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key && !["zone", "gpu"].contains(&key) {
            keys += 1;
            let named = [format!("`{key}`"), format!(".{key}`")].iter().any(|k| page.contains(k));
            assert!(named, "{key} is not in docs/configuration.md");
        }
    }
    assert!(keys > 30, "{keys} keys were seen");
}

fn yaml(text: &str) -> serde_json::Value {
    serde_saphyr::from_str(text).expect("YAML")
}

#[track_caller]
fn check_spec(place: &str, json: &[u8]) {
    if let Err(problems) = parse_submission(json) {
        panic!("{place}: {problems:?}");
    }
}

#[test]
fn example_specs_are_valid() {
    for path in files("examples/tasks") {
        let place = path.display().to_string();
        let text = fs::read_to_string(&path).expect("a spec");
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => check_spec(&place, text.as_bytes()),
            Some("ndjson") => text.lines().for_each(|line| check_spec(&place, line.as_bytes())),
            Some("yaml") => check_spec(&place, yaml(&text).to_string().as_bytes()),
            other => panic!("{place}: a test must know {other:?}"),
        }
    }
}

#[test]
fn specs_on_the_pages_are_valid() {
    let mut specs = 0;
    for page in PAGES {
        let text = read(page);
        for block in text.split("```").skip(1).step_by(2) {
            let (language, block) = block.split_once('\n').unwrap_or_default();
            if language == "yaml" {
                specs += 1;
                check_spec(page, yaml(block).to_string().as_bytes());
            }
            for line in block
                .lines()
                .filter(|line| line.starts_with("{\"command\"") || line.starts_with("{\"script\""))
            {
                specs += 1;
                check_spec(page, line.as_bytes());
            }
            for (_, json) in block.lines().filter_map(|line| line.split_once("runlane.submit '")) {
                specs += 1;
                check_spec(page, json.trim_end_matches('\'').as_bytes());
            }
        }
    }
    assert!(specs > 3, "{specs} specs were seen");
}

#[test]
fn deployment_files_can_be_read() {
    for path in files("deploy").into_iter().chain([root().join("docker-compose.yml")]) {
        let text = fs::read_to_string(&path).expect("text");
        let place = path.display();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yml" | "yaml") => {
                for document in text.split("\n---\n") {
                    assert!(yaml(document).is_object(), "{place}");
                }
            }
            Some("toml") => {
                let said = help(&["check", path.to_str().expect("UTF-8")]);
                assert!(said.contains("ok"), "{place}: {said}");
            }
            Some("json" | "conf" | "service") => {}
            other => panic!("{place}: a test must know {other:?}"),
        }
    }
}

//! The JSON Schemas of the wire types, draft 2020-12, as they stand in `schemas/`.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{
    CancelRequest, ControlReply, ControlRequest, LaneRecord, Outcome, SlotRecord, StatusEvent,
    SubmitReply, TaskSpec, WorkerPresence,
};

/// Returns each schema with its file name.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        of::<TaskSpec>("task-spec.json", "TaskSpec"),
        of::<StatusEvent>("status-event.json", "StatusEvent"),
        of::<Outcome>("outcome.json", "Outcome"),
        of::<CancelRequest>("cancel-request.json", "CancelRequest"),
        of::<SubmitReply>("submit-reply.json", "SubmitReply"),
        of::<WorkerPresence>("worker-presence.json", "WorkerPresence"),
        of::<LaneRecord>("lane-record.json", "LaneRecord"),
        of::<ControlRequest>("control-request.json", "ControlRequest"),
        of::<ControlReply>("control-reply.json", "ControlReply"),
        of::<SlotRecord>("slot-record.json", "SlotRecord"),
    ]
}

/// Returns the text of each schema file with its name.
pub fn render() -> Vec<(String, String)> {
    let text = |schema: &Value| {
        let json = serde_json::to_string_pretty(schema).expect("a schema has only string keys");
        format!("{json}\n")
    };
    all().iter().map(|(name, schema)| ((*name).to_owned(), text(schema))).collect()
}

fn of<T: JsonSchema>(file: &'static str, title: &str) -> (&'static str, Value) {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let name = file.trim_end_matches(".json");
    schema.insert("$id".to_owned(), format!("urn:runlane:schema:{name}").into());
    schema.insert("title".to_owned(), title.into());
    (file, schema.to_value())
}

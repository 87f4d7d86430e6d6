//! JSON Schema of the file, from the declarations, for editors and for `tollgate schema`.

use serde_json::{Value as Json, json};

use super::read::Value;
use super::spec::Config;

/// Draft 2020-12. What words cannot hold (bounds of durations and sizes) stands in the descriptions.
pub fn json() -> Json {
    let mut schema = Config::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("gateway.toml");
    schema["$defs"] = json!({
        "variable": {
            "description": "A string with environment variables: ${NAME} or ${NAME:-default}.",
            "type": "string",
            "pattern": "\\$\\{",
        },
    });
    schema
}

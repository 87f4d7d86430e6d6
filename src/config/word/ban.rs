//! The words of `[ban.NAME]`.

use serde_json::{Value as Json, json};

use super::Word;
use crate::limit::ban::{PathPattern, When};

impl Word for When {
    const EXPECTS: &'static str = r#"a rule such as "20 refusals in 1 minute""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+ +([×x] +)?[a-z0-9/]+ +in +[0-9]+ +(second|minute|hour|day)s?$" })
    }
}

impl Word for PathPattern {
    const EXPECTS: &'static str = r#"a path such as "/trap" or "/trap/*""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^/[^*?# ]*[*]?$" })
    }
}

//! The word of `[admin]`.

use serde_json::{Value as Json, json};

use super::Word;
use crate::token::Token;

impl Word for Token {
    const EXPECTS: &'static str = "a token of 16 to 512 visible characters";

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[!-~]{16,512}$" })
    }
}

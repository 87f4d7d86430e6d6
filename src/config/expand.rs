//! Environment variables in strings: `${NAME}`, `${NAME:-default}`, and `$${` for the characters themselves.
//! Knows nothing of TOML.

/// Why a string could not be expanded. `found` is the text as written, from `${` on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    pub found: String,
    why: String,
}

/// The text with every variable replaced, or every fault in it.
///
/// As in a shell, `:-` also replaces a variable that is set but empty. Values are not expanded again.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<Fault>> {
    let mut expanded = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.push_str(before);
        let Some(end) = from.find('}') else {
            faults.push(Fault {
                found: from.to_owned(),
                why: format!("{from:?} has no end; expected ${{NAME}} or ${{NAME:-default}}"),
            });
            rest = "";
            break;
        };
        let found = &from[..=end];
        match variable(&from[2..end], env) {
            Ok(value) => expanded.push_str(&value),
            Err(why) => faults.push(Fault {
                found: found.to_owned(),
                why,
            }),
        }
        rest = &from[end + 1..];
    }
    expanded.push_str(rest);
    if faults.is_empty() {
        Ok(expanded)
    } else {
        Err(faults)
    }
}

fn variable(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let named = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !named {
        return Err(format!(
            "{name:?} is not a variable name; expected ${{NAME}} or ${{NAME:-default}}, or $${{ for the characters ${{"
        ));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "environment variable {name:?} is not set; set it or write ${{{name}:-default}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${PORT}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_escapes_are_expanded() {
        for (text, expected) in [
            ("plain $ text }", "plain $ text }"),
            ("0.0.0.0:${PORT}", "0.0.0.0:8080"),
            ("${GONE:-a}-${PORT:-b}", "a-8080"),
            ("[${EMPTY}] [${EMPTY:-x}]", "[] [x]"),
            ("$${PORT}", "${PORT}"),
            ("${NESTED}", "${PORT}"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_fault_of_a_string_is_reported() {
        let faults = expand("${GONE} ${ALSO_GONE} ${1x} ${open", &env).unwrap_err();
        let found: Vec<&str> = faults.iter().map(|fault| fault.found.as_str()).collect();
        assert_eq!(found, ["${GONE}", "${ALSO_GONE}", "${1x}", "${open"]);
    }
}

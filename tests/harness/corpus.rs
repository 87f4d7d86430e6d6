//! Reads the messages of `tests/corpus/http1`; its README says how they are written.

pub struct Case<'a> {
    pub name: &'a str,
    pub outcome: &'a str,
    /// Escaped: see [`unescape`].
    pub text: &'a str,
}

pub fn cases(file: &str) -> Vec<Case<'_>> {
    let mut lines = file.lines();
    let mut cases = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("# ") {
            cases.push(Case {
                name,
                outcome: lines.next().expect("an outcome follows a name"),
                text: lines.next().expect("the bytes follow an outcome"),
            });
        }
    }
    cases
}

/// Bytes of an escaped text; `\{3*ab}` repeats and nests.
pub fn unescape(text: &str) -> Vec<u8> {
    fn run(rest: &mut &[u8], nested: bool, out: &mut Vec<u8>) {
        while let [byte, tail @ ..] = *rest {
            *rest = tail;
            match byte {
                b'}' if nested => return,
                b'\\' => {
                    let kind = rest[0];
                    *rest = &rest[1..];
                    match kind {
                        b'r' => out.push(b'\r'),
                        b'n' => out.push(b'\n'),
                        b't' => out.push(b'\t'),
                        b'\\' => out.push(b'\\'),
                        b'x' => {
                            let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                            out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                            *rest = &rest[2..];
                        }
                        b'{' => {
                            let star = rest.iter().position(|&b| b == b'*').expect("N*text");
                            let times = std::str::from_utf8(&rest[..star]).expect("a number");
                            *rest = &rest[star + 1..];
                            let mut piece = Vec::new();
                            run(rest, true, &mut piece);
                            out.extend(piece.repeat(times.parse().expect("a number")));
                        }
                        other => panic!("unknown escape {:?}", char::from(other)),
                    }
                }
                _ => out.push(*byte),
            }
        }
    }
    let mut out = Vec::new();
    run(&mut text.as_bytes(), false, &mut out);
    out
}

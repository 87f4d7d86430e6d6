//! Heads of HTTP/1.1 as they arrive.

/// Index after the blank line that ends the first head.
pub fn end_of_head(input: &[u8]) -> Option<usize> {
    let blank = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(blank + 4)
}

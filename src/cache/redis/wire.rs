//! Values as bytes, one behind the other, each with its length where that is not fixed. Knows nothing
//! of what they mean; what does not fit is `None`, never a panic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Appends values.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// What has been written so far.
    pub fn written(&self) -> &[u8] {
        &self.0
    }

    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// As many as follow.
    pub fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("parts of one response head");
        self.0.extend_from_slice(&count.to_le_bytes());
    }

    /// Bytes whose number the reader knows.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.fixed(bytes);
    }

    pub fn duration(&mut self, duration: Duration) {
        self.number(duration.as_secs());
        self.0
            .extend_from_slice(&duration.subsec_nanos().to_le_bytes());
    }

    /// A time before 1970 is 1970.
    pub fn time(&mut self, time: SystemTime) {
        self.duration(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    }
}

/// Takes values from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub fn fixed(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.fixed(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Each of as many as follow takes a byte at least: a longer list than there are bytes is none.
    pub fn count(&mut self) -> Option<usize> {
        let count = self.array().map(u32::from_le_bytes)?;
        let count = usize::try_from(count).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.fixed(length)
    }

    pub fn duration(&mut self) -> Option<Duration> {
        let seconds = self.number()?;
        let nanoseconds = self.array().map(u32::from_le_bytes)?;
        (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
    }

    pub fn time(&mut self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.duration()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, flag: bool, bytes: Vec<u8>, seconds in 0..1u64 << 40, nanoseconds in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanoseconds);
            let mut writer = Writer::default();
            writer.number(number);
            writer.flag(flag);
            writer.bytes(&bytes);
            writer.duration(duration);
            writer.time(UNIX_EPOCH + duration);
            let written = writer.finish();
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.flag(), Some(flag));
            prop_assert_eq!(reader.bytes(), Some(&*bytes));
            prop_assert_eq!(reader.duration(), Some(duration));
            prop_assert_eq!(reader.time(), Some(UNIX_EPOCH + duration));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn what_does_not_fit_is_nothing() {
        assert_eq!(Reader::new(&[1, 2]).number(), None);
        assert_eq!(Reader::new(&[2]).flag(), None);
        assert_eq!(Reader::new(&[9, 0, 0, 0, 1]).bytes(), None);
        assert_eq!(Reader::new(&[255; 4]).count(), None);
        assert_eq!(Reader::new(&[255; 12]).duration(), None);
        let forever = [&u64::MAX.to_le_bytes()[..], &[0; 4]].concat();
        assert_eq!(Reader::new(&forever).time(), None);
    }
}

//! The content codings, and how much work each may make.

use crate::word::choice;

choice! {
    /// A content coding, by its name in HTTP.
    pub enum Coding: "coding" {
        /// RFC 7932.
        Br = "br",
        /// RFC 8878.
        Zstd = "zstd",
        /// RFC 1952.
        Gzip = "gzip",
    }
}

impl Coding {
    pub const COUNT: usize = 3;

    /// Its place among [`Coding::COUNT`].
    pub fn place(self) -> usize {
        self as usize
    }
}

/// The level of each coding: higher is smaller and slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// 0 to 11.
    pub br: u16,
    /// 1 to 19. Above, clients would need more memory than RFC 9659 asks of them.
    pub zstd: u16,
    /// 1 to 9.
    pub gzip: u16,
}

impl Levels {
    pub fn of(&self, coding: Coding) -> u16 {
        match coding {
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        }
    }
}

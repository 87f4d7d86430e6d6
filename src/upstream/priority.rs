//! Who goes first where requests wait, and who is sent away last.

use crate::word::choice;

choice! {
    /// The class of a request, from the one that goes first to the one that goes last.
    #[derive(Default)]
    pub enum Priority: "priority" {
        /// Health checks: without them others take the application for dead.
        Critical = "critical",
        High = "high",
        #[default]
        Normal = "normal",
        Low = "low",
    }
}

/// How many there are.
pub const CLASSES: usize = Priority::ALL.len();

impl Priority {
    /// 0 goes first.
    pub fn rank(self) -> usize {
        self as usize
    }
}

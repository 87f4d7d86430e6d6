//! The files that a configuration names: there, readable, and of the right kind.
use crate::config::problem::Problems;
use crate::config::spec::Config;

/// Every file and directory that must be there before the gateway can start.
pub fn files(_config: &Config, _problems: &mut Problems) {}

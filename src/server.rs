//! Composition root: listeners, runtime, signals, drain, upgrade.

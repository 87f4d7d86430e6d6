//! File change or signal to a new plan, or the old one and the reason.

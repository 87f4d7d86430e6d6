//! What pieces of memory take of the machine: allocators hand them out in a few sizes, and what is
//! shared has its counters.

/// Bytes of a piece that is asked for as so many: four sizes from each power of two to the next, as
/// mimalloc and jemalloc have them.
pub fn of_piece(bytes: usize) -> usize {
    /// Up to here sizes are multiples of it.
    const LEAST: usize = 16;
    if bytes <= 4 * LEAST {
        return bytes.next_multiple_of(LEAST);
    }
    let step = (bytes - 1).ilog2() - 2;
    bytes.next_multiple_of(1 << step)
}

/// The same of a value in an `Arc`.
pub fn of_shared<T>() -> usize {
    of_piece(size_of::<T>() + 2 * size_of::<usize>())
}

/// The same of [`bytes::Bytes`] made of a vector that was exactly full: what is read has counters.
pub fn of_bytes(bytes: usize) -> usize {
    const COUNTERS: usize = 32;
    match bytes {
        0 => 0,
        _ => of_piece(bytes) + COUNTERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_four_sizes_between_powers_of_two() {
        for (asked, taken) in [
            (0, 0),
            (1, 16),
            (16, 16),
            (64, 64),
            (65, 80),
            (128, 128),
            (129, 160),
            (1024, 1024),
            (1025, 1280),
            (1281, 1536),
            (2048, 2048),
            (65_537, 81_920),
        ] {
            assert_eq!(of_piece(asked), taken, "{asked}");
        }
    }
}

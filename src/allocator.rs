//! mimalloc as the allocator of the whole program, asked for no alignment that it gives anyway.
//!
//! Its call for aligned memory takes a slow path, and more memory, for every size above 1 KiB that is no power of two:
//! the common wrapper of mimalloc uses it for everything.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// What mimalloc aligns every block of at least this size to (`MI_MAX_ALIGN_SIZE`); smaller blocks are aligned to their
/// size.
const NATURAL: usize = 16;

pub struct Mimalloc;

/// Whether a block of this size is aligned like this without asking.
fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

// SAFETY: every block comes from mimalloc and goes back to it, which takes blocks of all its functions alike.
// `is_natural` holds only where the plain functions align as the layout asks.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size is allowed, and the alignment of a layout is a power of two.
        unsafe {
            match is_natural(size, align) {
                true => mi_malloc(size).cast(),
                false => mi_malloc_aligned(size, align).cast(),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        unsafe {
            match is_natural(size, align) {
                true => mi_zalloc(size).cast(),
                false => mi_zalloc_aligned(size, align).cast(),
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back a block of ours.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the block is ours; where it stays in place it keeps its alignment.
        unsafe {
            match is_natural(size, align) {
                true => mi_realloc(block.cast(), size).cast(),
                false => mi_realloc_aligned(block.cast(), size, align).cast(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_aligned_as_its_layout_asks() {
        for align in [1, 2, 4, 8, 16, 32, 128] {
            for size in (1..700).chain([1000, 1024, 1025, 5000, 8192, 70_001, 4 << 20]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let aligned =
                    |block: *mut u8| !block.is_null() && block.addr().is_multiple_of(align);
                // SAFETY: the size is not zero, and each block is given back once by its last layout.
                unsafe {
                    let block = Mimalloc.alloc(layout);
                    let zeroed = Mimalloc.alloc_zeroed(layout);
                    assert!(aligned(block) && aligned(zeroed), "{layout:?}");
                    assert!(
                        std::slice::from_raw_parts(zeroed, size)
                            .iter()
                            .all(|byte| *byte == 0)
                    );
                    block.write_bytes(7, size);
                    let grown = Mimalloc.realloc(block, layout, 2 * size + 1);
                    assert!(aligned(grown), "{layout:?}");
                    assert!(
                        std::slice::from_raw_parts(grown, size)
                            .iter()
                            .all(|byte| *byte == 7)
                    );
                    let layout_grown = Layout::from_size_align(2 * size + 1, align).unwrap();
                    let shrunk = Mimalloc.realloc(grown, layout_grown, size.div_ceil(2));
                    assert!(aligned(shrunk), "{layout:?}");
                    let layout_shrunk = Layout::from_size_align(size.div_ceil(2), align).unwrap();
                    Mimalloc.dealloc(shrunk, layout_shrunk);
                    Mimalloc.dealloc(zeroed, layout);
                }
            }
        }
    }
}

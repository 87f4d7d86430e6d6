//! Which pages of a region are free: runs of them are taken and given back. Knows numbers of pages, and no memory.

use std::collections::{BTreeMap, BTreeSet};

/// Pages that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub start: u32,
    pub pages: u32,
}

impl Run {
    fn end(self) -> u32 {
        self.start + self.pages
    }
}

/// The free runs, none of which touches another.
#[derive(Debug)]
pub struct Runs {
    by_start: BTreeMap<u32, u32>,
    /// Length, then start.
    by_length: BTreeSet<(u32, u32)>,
}

impl Runs {
    /// All of so many pages are free.
    pub fn all(pages: u32) -> Self {
        let mut runs = Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
        };
        runs.add(Run { start: 0, pages });
        runs
    }

    /// Takes the shortest free run of so many pages, at least one; of what is longer the rest stays free.
    pub fn take(&mut self, pages: u32) -> Option<Run> {
        let &(length, start) = self.by_length.range((pages, 0)..).next()?;
        self.remove(Run {
            start,
            pages: length,
        });
        self.add(Run {
            start: start + pages,
            pages: length - pages,
        });
        Some(Run { start, pages })
    }

    /// Gives back what was taken.
    pub fn give(&mut self, run: Run) {
        let mut whole = run;
        let before = self.by_start.range(..run.start).next_back();
        let before = before.map(|(&start, &pages)| Run { start, pages });
        if let Some(before) = before.filter(|before| before.end() == run.start) {
            self.remove(before);
            whole.start = before.start;
            whole.pages += before.pages;
        }
        if let Some(&pages) = self.by_start.get(&run.end()) {
            let start = run.end();
            self.remove(Run { start, pages });
            whole.pages += pages;
        }
        self.add(whole);
    }

    fn add(&mut self, run: Run) {
        if run.pages > 0 {
            self.by_start.insert(run.start, run.pages);
            self.by_length.insert((run.pages, run.start));
        }
    }

    fn remove(&mut self, run: Run) {
        self.by_start.remove(&run.start);
        self.by_length.remove(&(run.pages, run.start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const PAGES: u32 = 40;

    /// Takes runs, or gives one of those that are taken.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u32),
        Give(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..10u32).prop_map(Step::Take),
            any::<usize>().prop_map(Step::Give)
        ];
        vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn no_page_is_in_two_runs_and_none_is_lost(steps in steps()) {
            let mut runs = Runs::all(PAGES);
            let mut taken: Vec<Run> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(pages) => {
                        let run = runs.take(pages);
                        let fits = |run: Run| run.pages == pages && run.end() <= PAGES;
                        prop_assert!(run.is_none_or(fits));
                        taken.extend(run);
                    }
                    Step::Give(_) if taken.is_empty() => {}
                    Step::Give(which) => runs.give(taken.swap_remove(which % taken.len())),
                }
                let free = runs.by_start.iter().map(|(&start, &pages)| Run { start, pages });
                let mut all: Vec<Run> = free.chain(taken.iter().copied()).collect();
                all.sort();
                let mut next = 0;
                for run in all {
                    prop_assert_eq!(run.start, next);
                    next = run.end();
                }
                prop_assert_eq!(next, PAGES);
                prop_assert_eq!(runs.by_length.len(), runs.by_start.len());
            }
            for run in taken.drain(..) {
                runs.give(run);
            }
            prop_assert_eq!(runs.take(PAGES), Some(Run { start: 0, pages: PAGES }));
        }
    }

    #[test]
    fn the_shortest_run_that_fits_is_taken() {
        let mut runs = Runs::all(20);
        let taken: Vec<_> = [5, 1, 3, 1, 10]
            .iter()
            .map(|pages| runs.take(*pages).unwrap())
            .collect();
        assert_eq!(runs.take(1), None);
        runs.give(taken[0]);
        runs.give(taken[2]);
        assert_eq!(runs.take(2).unwrap().start, taken[2].start);
    }
}

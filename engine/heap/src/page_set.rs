//! Which pages: an ordered set that is small when few pages are in it.
//!
//! Enters: page numbers. Leaves: the same, ascending, once each. Never here: an order that depends on insertion.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::layout::{PAGE, PAGE_SHIFT};

/// Number of a 4 KiB page of one memory, counted from its byte 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageIx(pub u32);

impl PageIx {
    /// The page that holds this byte. `address` must lie in a memory, hence below 2^44.
    pub const fn of(address: u64) -> Self {
        Self((address >> PAGE_SHIFT) as u32)
    }
    /// Address of the page's first byte.
    pub const fn address(self) -> u64 {
        (self.0 as u64) * PAGE as u64
    }
}

/// An ordered set of pages; 64 neighbours share an entry. A million canisters have several each, most of them empty: these take a pointer.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PageSet(Option<Box<Pages>>);

/// Never empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Pages {
    groups: BTreeMap<u32, u64>,
    length: u64,
}

impl Pages {
    fn insert(&mut self, group: u32, bits: u64) -> u64 {
        let mine = self.groups.entry(group).or_insert(0);
        let new = u64::from((bits & !*mine).count_ones());
        *mine |= bits;
        self.length += new;
        new
    }
}

impl PageSet {
    /// The empty set. Allocates nothing.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Adds a page; false when it was there already.
    pub fn insert(&mut self, page: PageIx) -> bool {
        self.0.get_or_insert_default().insert(page.0 >> 6, 1 << (page.0 & 63)) > 0
    }

    /// Adds every page of `other`.
    pub fn union(&mut self, other: &Self) {
        for (group, bits) in other.groups(0..=u32::MAX) {
            self.0.get_or_insert_default().insert(group, bits);
        }
    }

    /// Whether the page is in the set.
    pub fn contains(&self, page: PageIx) -> bool {
        self.group(page.0 >> 6) >> (page.0 & 63) & 1 == 1
    }

    /// Which pages of a group are in the set.
    fn group(&self, group: u32) -> u64 {
        self.0.as_ref().and_then(|pages| pages.groups.get(&group).copied()).unwrap_or(0)
    }

    fn groups(&self, range: RangeInclusive<u32>) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0.iter().flat_map(move |pages| pages.groups.range(range.clone())).map(|(&group, &bits)| (group, bits))
    }

    /// Adds the pages of `[first, end)`.
    pub(crate) fn insert_range(&mut self, first: u32, end: u32) {
        for (group, mask) in masks(first, end) {
            self.0.get_or_insert_default().insert(group, mask);
        }
    }

    /// How many pages of `[first, end)` are in the set.
    pub(crate) fn count(&self, first: u32, end: u32) -> u64 {
        if first >= end {
            return 0;
        }
        let groups = self.groups(first >> 6..=(end - 1) >> 6);
        groups.map(|(group, bits)| u64::from((bits & mask(group, first, end)).count_ones())).sum()
    }

    /// The first pages of `[first, end)` that are not in the set and follow on each other.
    pub(crate) fn first_gap(&self, first: u32, end: u32) -> Option<std::ops::Range<u32>> {
        let start = self.next(first, end, |bits| !bits)?;
        Some(start..self.next(start, end, |bits| bits).unwrap_or(end))
    }

    /// The first page of `[from, end)` whose bit is set in what `of` makes of its group's.
    fn next(&self, from: u32, end: u32, of: impl Fn(u64) -> u64) -> Option<u32> {
        masks(from, end).find_map(|(group, mask)| {
            let bits = of(self.group(group)) & mask;
            (bits != 0).then(|| group << 6 | bits.trailing_zeros())
        })
    }

    /// Number of pages.
    pub fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |pages| pages.length)
    }

    /// Whether no page is in the set.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PageIx> + '_ {
        self.groups(0..=u32::MAX).flat_map(|(group, bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let page = PageIx(group << 6 | left.trailing_zeros());
                left &= left - 1;
                Some(page)
            })
        })
    }
}

/// Groups that `[first, end)` has pages of, and the bits of these pages.
fn masks(first: u32, end: u32) -> impl Iterator<Item = (u32, u64)> {
    let groups = if first < end { first >> 6..((end - 1) >> 6) + 1 } else { 0..0 };
    groups.map(move |group| (group, mask(group, first, end)))
}

/// The bits of a group that are pages of `[first, end)`, of which it has some.
const fn mask(group: u32, first: u32, end: u32) -> u64 {
    let low = if first >> 6 == group { u64::MAX << (first & 63) } else { u64::MAX };
    let high = if (end - 1) >> 6 == group { u64::MAX >> (63 - ((end - 1) & 63)) } else { u64::MAX };
    low & high
}

impl FromIterator<PageIx> for PageSet {
    fn from_iter<I: IntoIterator<Item = PageIx>>(pages: I) -> Self {
        let mut set = Self::new();
        for page in pages {
            set.insert(page);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_out_once_and_ascending() {
        let set: PageSet = [200, 3, 64, 3, 63, 0, 200].into_iter().map(PageIx).collect();
        assert_eq!(set.iter().map(|p| p.0).collect::<Vec<_>>(), [0, 3, 63, 64, 200]);
        assert_eq!(set.len(), 5);
        assert!(set.contains(PageIx(63)) && !set.contains(PageIx(62)) && !set.contains(PageIx(9_999)));
    }

    #[test]
    fn ranges_are_counted_and_searched_as_their_pages_are() {
        for (first, end) in [(0, 0), (0, 1), (5, 64), (63, 65), (64, 128), (1, 200), (130, 131)] {
            let mut set: PageSet = [3, 63, 64, 199].into_iter().map(PageIx).collect();
            let pages = |set: &PageSet| -> Vec<u32> { set.iter().map(|page| page.0).collect() };
            let inside = pages(&set).into_iter().filter(|page| (first..end).contains(page)).count();
            assert_eq!(set.count(first, end), inside as u64, "{first} {end}");
            let start = (first..end).find(|page| !set.contains(PageIx(*page)));
            let gap = start.map(|start| start..(start..end).find(|page| set.contains(PageIx(*page))).unwrap_or(end));
            assert_eq!(set.first_gap(first, end), gap, "{first} {end}");
            let singly: PageSet = set.iter().chain((first..end).map(PageIx)).collect();
            set.insert_range(first, end);
            assert_eq!((pages(&set), set.len()), (pages(&singly), singly.len()), "{first} {end}");
            assert_eq!((set.count(first, end), set.first_gap(first, end)), (u64::from(end - first), None));
        }
    }

    #[test]
    fn a_union_counts_shared_pages_once() {
        let mut a: PageSet = [1, 2, 3].into_iter().map(PageIx).collect();
        let b: PageSet = [3, 4, 500].into_iter().map(PageIx).collect();
        a.union(&b);
        assert_eq!(a.len(), 5);
        assert_eq!(a.iter().count(), 5);
    }
}

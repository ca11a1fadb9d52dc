//! Byte strings of a tree, held in slabs by size so that a short label or value costs no allocation of its own.
//!
//! Enters: byte slices. Leaves: 4-byte references. Slots are reused, never moved to the system allocator one by one.
//! Strings beyond the largest slot get an allocation each; strings of the dictionary are not stored at all.

/// Bytes of each slot class, two of them the string's length. Sized for what a state tree holds: canister ids (10 bytes) and
/// LEB128 times (9), two principals, digests and request ids (32) and controllers of one user, DER keys (44 and 133).
const SLOT_BYTES: [usize; 6] = [12, 24, 40, 72, 136, 264];
const HEADER_BYTES: usize = 2;
const LARGE: u32 = 6;
const DICTIONARY: u32 = 7;
const INDEX_BITS: u32 = 29;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

const _: () = assert!(SLOT_BYTES.len() == LARGE as usize);
const _: () = assert!(SLOT_BYTES[5] <= u16::MAX as usize);

/// A string in [`Blobs`]: its class in the top 3 bits, its slot in the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlobRef(pub u32);

impl BlobRef {
    fn new(class: u32, index: usize) -> Self {
        assert!(index <= INDEX_MASK as usize, "a tree holds at most 2^29 strings of one size");
        Self(class << INDEX_BITS | index as u32)
    }

    fn class(self) -> u32 {
        self.0 >> INDEX_BITS
    }

    fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }
}

#[derive(Default)]
struct Slab {
    bytes: Vec<u8>,
    free: Vec<u32>,
}

/// Strings by reference.
pub(crate) struct Blobs {
    slabs: [Slab; 6],
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
    /// Sorted; strings that recur in most subtrees.
    dictionary: &'static [&'static [u8]],
}

impl Blobs {
    /// Panics: when `dictionary` is not strictly sorted.
    pub fn new(dictionary: &'static [&'static [u8]]) -> Self {
        assert!(dictionary.is_sorted_by(|a, b| a < b), "the dictionary is strictly sorted");
        Self { slabs: Default::default(), large: Vec::new(), large_free: Vec::new(), dictionary }
    }

    /// Stores `bytes` as a label: one of the dictionary costs nothing.
    pub fn insert_label(&mut self, bytes: &[u8]) -> BlobRef {
        match self.dictionary.binary_search(&bytes) {
            Ok(index) => BlobRef::new(DICTIONARY, index),
            Err(_) => self.insert(bytes),
        }
    }

    pub fn insert(&mut self, bytes: &[u8]) -> BlobRef {
        let Some(class) = SLOT_BYTES.iter().position(|slot| bytes.len() + HEADER_BYTES <= *slot) else {
            return self.insert_large(bytes);
        };
        let (slab, slot) = (&mut self.slabs[class], SLOT_BYTES[class]);
        let index = slab.free.pop().map_or(slab.bytes.len() / slot, |index| index as usize);
        if index * slot == slab.bytes.len() {
            slab.bytes.resize((index + 1) * slot, 0);
        }
        let (header, body) = slab.bytes[index * slot..(index + 1) * slot].split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&(bytes.len() as u16).to_le_bytes());
        body[..bytes.len()].copy_from_slice(bytes);
        BlobRef::new(class as u32, index)
    }

    fn insert_large(&mut self, bytes: &[u8]) -> BlobRef {
        let index = match self.large_free.pop() {
            Some(index) => {
                self.large[index as usize] = bytes.into();
                index as usize
            }
            None => {
                self.large.push(bytes.into());
                self.large.len() - 1
            }
        };
        BlobRef::new(LARGE, index)
    }

    #[inline]
    pub fn get(&self, blob: BlobRef) -> &[u8] {
        let index = blob.index();
        match blob.class() {
            DICTIONARY => self.dictionary[index],
            LARGE => &self.large[index],
            class => {
                let slot = SLOT_BYTES[class as usize];
                let bytes = &self.slabs[class as usize].bytes[index * slot..(index + 1) * slot];
                let length = u16::from_le_bytes([bytes[0], bytes[1]]) as usize;
                &bytes[HEADER_BYTES..HEADER_BYTES + length]
            }
        }
    }

    pub fn remove(&mut self, blob: BlobRef) {
        let index = blob.index() as u32;
        match blob.class() {
            DICTIONARY => {}
            LARGE => {
                self.large[index as usize] = Box::default();
                self.large_free.push(index);
            }
            class => self.slabs[class as usize].free.push(index),
        }
    }

    /// Bytes of memory held, free slots included.
    pub fn memory_bytes(&self) -> usize {
        let slabs: usize = self.slabs.iter().map(|slab| slab.bytes.capacity() + 4 * slab.free.capacity()).sum();
        let large: usize = self.large.iter().map(|bytes| bytes.len()).sum();
        slabs + large + self.large.capacity() * size_of::<Box<[u8]>>() + 4 * self.large_free.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_size_come_back_and_slots_are_reused() {
        let mut blobs = Blobs::new(&[b"controllers", b"status"]);
        let sizes = [0, 1, 9, 10, 11, 22, 23, 32, 38, 39, 70, 71, 133, 134, 135, 262, 263, 5_000];
        let strings: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
        let refs: Vec<BlobRef> = strings.iter().map(|string| blobs.insert(string)).collect();
        for (string, blob) in strings.iter().zip(&refs) {
            assert_eq!(blobs.get(*blob), string);
        }
        let held = blobs.memory_bytes();
        for blob in &refs {
            blobs.remove(*blob);
        }
        for string in strings.iter().rev() {
            let blob = blobs.insert(string);
            assert!(refs.contains(&blob), "a freed slot is used first");
            assert_eq!(blobs.get(blob), string);
        }
        assert!(blobs.memory_bytes() <= held + 4 * 64);
    }

    #[test]
    fn dictionary_labels_take_no_slot() {
        let mut blobs = Blobs::new(&[b"controllers", b"status"]);
        let label = blobs.insert_label(b"status");
        assert_eq!(blobs.get(label), b"status");
        blobs.remove(label);
        assert_eq!(blobs.get(label), b"status");
        assert_eq!(blobs.memory_bytes(), 0);
    }
}

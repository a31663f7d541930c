//! A blocked bloom filter over trace ids: one id is looked up by reading 32 bytes. Says "no" for sure, "yes" perhaps.
//!
//! Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007); the salts are those of the Parquet format's split-block filter.

/// Bytes of one block.
pub(crate) const BLOCK_BYTES: usize = 32;
const BITS_PER_ID: usize = 12;
const SALTS: [u32; 8] = [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Hash of an id; part of the file format.
pub(crate) fn hash(id: [u8; 16]) -> u64 {
    let (low, high) = id.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |all, b| (all << 8) | u64::from(*b));
    let mixed = word(low) ^ word(high).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// The block an id belongs to, of `blocks`.
pub(crate) fn block_of(hash: u64, blocks: u32) -> u32 {
    (((hash >> 32) * u64::from(blocks)) >> 32) as u32
}

fn mask(hash: u64) -> [u32; 8] {
    SALTS.map(|salt| 1_u32 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// Whether a block may hold an id.
pub(crate) fn may_hold(block: &[u8], hash: u64) -> bool {
    block.len() == BLOCK_BYTES
        && block
            .chunks_exact(4)
            .zip(mask(hash))
            .all(|(word, bit)| u32::from_le_bytes([word[0], word[1], word[2], word[3]]) & bit != 0)
}

/// Appends a filter over `hashes` (sorted, without duplicates) and returns its number of blocks.
pub(crate) fn build(out: &mut Vec<u8>, hashes: &[u64]) -> u32 {
    if hashes.is_empty() {
        return 0;
    }
    let blocks = (hashes.len() * BITS_PER_ID).div_ceil(BLOCK_BYTES * 8) as u32;
    let start = out.len();
    out.resize(start + blocks as usize * BLOCK_BYTES, 0);
    for hash in hashes {
        let at = start + block_of(*hash, blocks) as usize * BLOCK_BYTES;
        for (word, bit) in out[at..at + BLOCK_BYTES].chunks_exact_mut(4).zip(mask(*hash)) {
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) | bit;
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        id
    }

    #[test]
    fn never_misses_and_rarely_lies() {
        let mut hashes: Vec<u64> = (0..8192).map(|n| hash(id(n))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 8192);
        let mut filter = Vec::new();
        let blocks = build(&mut filter, &hashes);
        let test = |n: u64| {
            let h = hash(id(n));
            let at = block_of(h, blocks) as usize * BLOCK_BYTES;
            may_hold(&filter[at..at + BLOCK_BYTES], h)
        };
        assert!((0..8192).all(test));
        let lies = (100_000..200_000).filter(|n| test(*n)).count();
        assert!(lies < 1_500, "{lies} of 100000");
    }
}

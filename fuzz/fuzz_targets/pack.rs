//! The packer on any lengths: every token once, no window over its size, saved and restored anywhere.
#![no_main]

use alignite_data::pack::{Strategy, pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u16, Vec<u16>)| {
    let (strategy, capacity, lengths) = input;
    let strategy = [Strategy::None, Strategy::Bfd, Strategy::BfdSplit, Strategy::Wrapped][usize::from(strategy) % 4];
    let capacity = u32::from(capacity).max(1);
    let lengths: Vec<u32> = lengths.into_iter().map(u32::from).collect();
    let Ok(packs) = pack(&lengths, strategy, capacity, 64) else {
        assert!(lengths.iter().any(|&length| length > capacity || length == 0));
        return;
    };
    let mut seen: Vec<u64> = vec![0; lengths.len()];
    for window in packs.windows() {
        assert!(window.iter().map(|piece| u64::from(piece.length)).sum::<u64>() <= u64::from(capacity));
        for piece in window {
            seen[usize::try_from(piece.row).expect("a row")] += u64::from(piece.length);
        }
    }
    assert!(seen.iter().zip(&lengths).all(|(&seen, &length)| seen == u64::from(length)));
});

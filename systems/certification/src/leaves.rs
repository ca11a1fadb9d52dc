//! The encodings of values.

use cyclotron_types::Principal;
use cyclotron_types::units::{Bytes, Cycles};
use cyclotron_wire::Writer;

/// Encodes principals as a tagged CBOR array, in the order given.
pub(crate) fn controllers<'a>(controllers: impl ExactSizeIterator<Item = &'a Principal>) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.array(controllers.len());
    for principal in controllers {
        writer.bytes(principal.as_slice());
    }
    writer.finish()
}

/// Encodes closed intervals of canister ids as a tagged CBOR array of pairs.
pub(crate) fn canister_ranges(ranges: &[(Principal, Principal)]) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.array(ranges.len());
    for (first, last) in ranges {
        writer.array(2).bytes(first.as_slice()).bytes(last.as_slice());
    }
    writer.finish()
}

/// A subnet's use of resources.
/// Spec: ic-interface-spec #state-tree-subnet, `metrics`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct SubnetMetrics {
    /// Canisters on the subnet.
    pub canisters: u64,
    /// Bytes that their state takes.
    pub canister_state: Bytes,
    /// Cycles consumed by all canisters so far, deleted ones included.
    pub consumed_cycles: Cycles,
    /// Update transactions processed so far.
    pub update_transactions: u64,
}

/// Encodes metrics as clients decode them: maps whose keys are the fields' positions (dfinity/ic `canonical_state/src/encoding`,
/// "packed" CBOR).
pub(crate) fn subnet_metrics(metrics: &SubnetMetrics) -> Vec<u8> {
    let cycles = metrics.consumed_cycles.0;
    let (low, high) = (cycles as u64, (cycles >> 64) as u64);
    let mut writer = Writer::default();
    writer.map(4).unsigned(0).unsigned(metrics.canisters).unsigned(1).unsigned(metrics.canister_state.0);
    writer.unsigned(2).map(2).unsigned(0).unsigned(low).unsigned(1).unsigned(high);
    writer.unsigned(3).unsigned(metrics.update_transactions);
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_and_ranges_decode_as_clients_decode_them() {
        for count in [0, 1, 2, 10, 24] {
            let principals: Vec<Principal> =
                (0..count).map(|i| Principal::from_slice(&vec![i; 1 + i as usize])).collect();
            let bytes = controllers(principals.iter());
            assert_eq!(bytes[..3], [0xd9, 0xd9, 0xf7]);
            assert_eq!(serde_cbor::from_slice::<Vec<Principal>>(&bytes).unwrap(), principals);
            let pairs: Vec<(Principal, Principal)> = principals.iter().map(|p| (*p, *p)).collect();
            let bytes = canister_ranges(&pairs);
            assert_eq!(serde_cbor::from_slice::<Vec<(Principal, Principal)>>(&bytes).unwrap(), pairs);
        }
    }

    #[test]
    fn metrics_decode_as_clients_decode_them() {
        for consumed in [0, 1, u128::from(u64::MAX), 1 << 64, u128::MAX] {
            let metrics = SubnetMetrics {
                canisters: 3,
                canister_state: Bytes(1 << 40),
                consumed_cycles: Cycles(consumed),
                update_transactions: 900,
            };
            let decoded: ic_transport_types::SubnetMetrics = serde_cbor::from_slice(&subnet_metrics(&metrics)).unwrap();
            assert_eq!(decoded.num_canisters, 3);
            assert_eq!(decoded.canister_state_bytes, 1 << 40);
            assert_eq!(decoded.consumed_cycles_total, consumed);
            assert_eq!(decoded.update_transactions_total, 900);
        }
    }
}

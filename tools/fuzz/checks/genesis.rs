// What must hold for all bytes that say what a subnet is made with; shared by the fuzz target and the test that replays its corpus.

use cyclotron_subnet::{Genesis, Subnet, SubnetOptions};
use cyclotron_types::units::Time;

/// A subnet can be made of what is read, and it must be read again from what is written of it; the rest must be refused in words.
pub fn check(input: &[u8]) {
    match Genesis::decode(input) {
        Ok(genesis) => {
            assert_eq!(Genesis::decode(&genesis.encode()).as_ref(), Ok(&genesis));
            let options = SubnetOptions::unsigned(genesis, 1).expect("this machine can run a subnet");
            let mut subnet = Subnet::new(options).expect("this machine has threads");
            let batch = subnet.next_batch(Time(1), [0; 32]);
            subnet.execute(batch).expect("a subnet without sinks takes every batch");
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

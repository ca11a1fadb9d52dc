//! A bytecode interpreter: one indirect jump an instruction, a stack in memory.
//!
//! Its program computes Collatz lengths and sieves primes.

#[derive(Clone, Copy)]
enum Op {
    Push(i64),
    Get(u8),
    Set(u8),
    Add,
    Sub,
    Mul,
    Shr(u8),
    And,
    LessThan,
    Dup,
    LoadCell,
    StoreCell,
    Jump(u32),
    JumpIfZero(u32),
    Halt,
}

struct Machine {
    stack: Vec<i64>,
    locals: [i64; 8],
    cells: Vec<i64>,
}

impl Machine {
    fn pop(&mut self) -> i64 {
        self.stack.pop().unwrap_or(0)
    }

    fn binary(&mut self, f: impl FnOnce(i64, i64) -> i64) {
        let (right, left) = (self.pop(), self.pop());
        self.stack.push(f(left, right));
    }

    fn cell(&self, at: i64) -> usize {
        at as usize & (self.cells.len() - 1)
    }

    fn run(&mut self, program: &[Op]) {
        let mut at = 0;
        while let Some(op) = program.get(at) {
            at += 1;
            match *op {
                Op::Push(value) => self.stack.push(value),
                Op::Get(local) => self.stack.push(self.locals[usize::from(local) & 7]),
                Op::Set(local) => self.locals[usize::from(local) & 7] = self.pop(),
                Op::Add => self.binary(i64::wrapping_add),
                Op::Sub => self.binary(i64::wrapping_sub),
                Op::Mul => self.binary(i64::wrapping_mul),
                Op::Shr(by) => self.binary_shift(by),
                Op::And => self.binary(|left, right| left & right),
                Op::LessThan => self.binary(|left, right| i64::from(left < right)),
                Op::Dup => {
                    let top = self.pop();
                    self.stack.extend([top, top]);
                }
                Op::LoadCell => {
                    let cell = self.pop();
                    self.stack.push(self.cells[self.cell(cell)]);
                }
                Op::StoreCell => {
                    let (value, cell) = (self.pop(), self.pop());
                    let cell = self.cell(cell);
                    self.cells[cell] = value;
                }
                Op::Jump(to) => at = to as usize,
                Op::JumpIfZero(to) => {
                    if self.pop() == 0 {
                        at = to as usize;
                    }
                }
                Op::Halt => return,
            }
        }
    }

    fn binary_shift(&mut self, by: u8) {
        let value = self.pop();
        self.stack.push(value >> (by & 63));
    }
}

const FROM: u8 = 0;
const LIMIT: u8 = 1;
const X: u8 = 2;
const STEPS: u8 = 3;
const SUM: u8 = 4;

/// For each number from `FROM` to `LIMIT`: the length of its Collatz chain goes into its cell and into the sum.
const PROGRAM: &[Op] = &[
    // 0: while FROM < LIMIT
    Op::Get(FROM),
    Op::Get(LIMIT),
    Op::LessThan,
    Op::JumpIfZero(40),
    Op::Get(FROM),
    Op::Set(X),
    Op::Push(0),
    Op::Set(STEPS),
    // 8: while 1 < X
    Op::Push(1),
    Op::Get(X),
    Op::LessThan,
    Op::JumpIfZero(28),
    Op::Get(X),
    Op::Push(1),
    Op::And,
    Op::JumpIfZero(23),
    // 16: X = 3 X + 1
    Op::Get(X),
    Op::Push(3),
    Op::Mul,
    Op::Push(1),
    Op::Add,
    Op::Set(X),
    Op::Jump(26),
    // 23: X = X / 2
    Op::Get(X),
    Op::Shr(1),
    Op::Set(X),
    // 26: STEPS += 1
    Op::Jump(41),
    Op::Halt,
    // 28: cells[FROM] = STEPS; SUM += cells[FROM >> 1] + STEPS; FROM += 1
    Op::Get(FROM),
    Op::Get(STEPS),
    Op::StoreCell,
    Op::Get(FROM),
    Op::Shr(1),
    Op::LoadCell,
    Op::Get(STEPS),
    Op::Dup,
    Op::Add,
    Op::Add,
    Op::Get(SUM),
    Op::Jump(46),
    // 40
    Op::Halt,
    // 41
    Op::Get(STEPS),
    Op::Push(-1),
    Op::Sub,
    Op::Set(STEPS),
    Op::Jump(8),
    // 46
    Op::Add,
    Op::Set(SUM),
    Op::Get(FROM),
    Op::Push(1),
    Op::Add,
    Op::Set(FROM),
    Op::Jump(0),
];

/// Runs the program over the numbers below `n` thousand.
pub fn run(n: u32) -> u64 {
    let mut machine = Machine { stack: Vec::with_capacity(64), locals: [0; 8], cells: vec![0; 4_096] };
    machine.locals[usize::from(FROM)] = 1;
    machine.locals[usize::from(LIMIT)] = i64::from(n) * 1_000;
    machine.run(PROGRAM);
    machine.cells.iter().fold(machine.locals[usize::from(SUM)] as u64, |sum, cell| crate::fold(sum, *cell as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_seven_takes_a_hundred_and_eleven_steps() {
        let mut machine = Machine { stack: Vec::new(), locals: [0; 8], cells: vec![0; 4_096] };
        machine.locals[usize::from(FROM)] = 27;
        machine.locals[usize::from(LIMIT)] = 28;
        machine.run(PROGRAM);
        assert_eq!(machine.cells[27], 111);
    }
}

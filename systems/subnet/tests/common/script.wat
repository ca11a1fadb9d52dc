;; A canister that does what its argument says. The argument is a list of steps, one opcode byte each:
;;   0 <u64>           adds to the counter and writes it to the page that the number picks
;;   1 <10-byte id>    calls `go` of that canister with the rest of the argument, 7 cycles attached; replies when the answer comes
;;   2                 traps
;;   3 <u64>           writes the counter to stable memory at the number, modulo a page
;;   4 <u64>           spins so many times
;;   5 <u64>           sets the global timer to now plus so many nanoseconds
;;   6                 certifies the counter
;;   7 <u64>           grows memory by one page, at most to eight
;; At the end it replies with the counter. A timer adds a thousand to the counter. Half of the cycles that come with a call are accepted.
;; `canister_init` and `canister_post_upgrade` spin as often as their argument says, if it has eight bytes; `canister_pre_upgrade` writes
;; the counter to stable memory at 8. `get` replies with the counter, `heap` with the whole heap, `stable` with the page of stable memory.
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_cycles_accept128" (func $accept (param i64 i64 i32)))
  (import "ic0" "msg_cycles_available128" (func $available (param i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_data_append" (func $call_append (param i32 i32)))
  (import "ic0" "call_cycles_add128" (func $call_cycles (param i64 i64)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 2)
  (table 2 funcref)
  (elem (i32.const 0) $answered $refused)
  (data (i32.const 64) "go")
  (data (i32.const 72) "as told")
  (global $spun (mut i64) (i64.const 0))
  ;; The counter is at 0, scratch for cycles at 16, the argument from 65536 on.
  (func $add (param $n i64)
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (local.get $n))))
  (func $finish
    (call $append (i32.const 0) (i32.const 8))
    (call $reply))
  (func $answered (param i32) (call $add (i64.const 1)) (call $finish))
  (func $refused (param i32) (call $add (i64.const 10)) (call $finish))
  (func $spin (param $n i64)
    (loop $again
      (if (i64.gt_s (local.get $n) (i64.const 0))
        (then
          (global.set $spun (i64.add (global.get $spun) (i64.const 1)))
          (local.set $n (i64.sub (local.get $n) (i64.const 1)))
          (br $again)))))
  (func $begin
    (if (i32.ge_u (call $arg_size) (i32.const 8))
      (then
        (call $arg_copy (i32.const 24) (i32.const 0) (i32.const 8))
        (call $spin (i64.load (i32.const 24))))))
  (func $init
    (drop (call $stable_grow (i64.const 1)))
    (call $begin))
  (func $pre_upgrade
    (call $stable_write (i64.const 8) (i64.const 0) (i64.const 8)))
  (func $take_cycles
    (call $available (i32.const 16))
    (call $accept (i64.const 0) (i64.shr_u (i64.load (i32.const 16)) (i64.const 1)) (i32.const 32)))
  (func $go
    (local $at i32) (local $end i32) (local $op i32) (local $n i64)
    (call $take_cycles)
    (local.set $at (i32.const 65536))
    (local.set $end (i32.add (local.get $at) (call $arg_size)))
    (call $arg_copy (local.get $at) (i32.const 0) (call $arg_size))
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (call $finish) (return)))
      (local.set $op (i32.load8_u (local.get $at)))
      (local.set $n (i64.load offset=1 (local.get $at)))
      (if (i32.eq (local.get $op) (i32.const 1))
        (then
          (call $call_new (i32.add (local.get $at) (i32.const 1)) (i32.const 10) (i32.const 64) (i32.const 2)
                          (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
          (call $call_append (i32.add (local.get $at) (i32.const 11))
                             (i32.sub (local.get $end) (i32.add (local.get $at) (i32.const 11))))
          (call $call_cycles (i64.const 0) (i64.const 7))
          (if (call $call_perform) (then (call $finish)))
          (return)))
      (if (i32.eq (local.get $op) (i32.const 2)) (then (call $trap (i32.const 72) (i32.const 7))))
      (if (i32.eq (local.get $op) (i32.const 6))
        (then (call $certify (i32.const 0) (i32.const 8))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br $next)))
      (if (i32.eqz (local.get $op))
        (then (call $add (local.get $n))
              (i64.store (i32.add (i32.const 1024) (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 0xfff0)))
                         (i64.load (i32.const 0)))))
      (if (i32.eq (local.get $op) (i32.const 3))
        (then (call $stable_write (i64.and (local.get $n) (i64.const 0xfff0)) (i64.const 0) (i64.const 8))))
      (if (i32.eq (local.get $op) (i32.const 4))
        (then (call $spin (local.get $n))))
      (if (i32.eq (local.get $op) (i32.const 5))
        (then (drop (call $timer_set (i64.add (call $time) (local.get $n))))))
      (if (i32.eq (local.get $op) (i32.const 7))
        (then (if (i32.lt_u (memory.size) (i32.const 8)) (then (drop (memory.grow (i32.const 1)))))))
      (local.set $at (i32.add (local.get $at) (i32.const 9)))
      (br $next)))
  (func $timer (call $add (i64.const 1000)))
  (func $get (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func $heap (call $append (i32.const 0) (i32.mul (memory.size) (i32.const 65536))) (call $reply))
  (func $stable
    (call $stable_read (i64.const 65536) (i64.const 0) (i64.const 65536))
    (call $append (i32.const 65536) (i32.const 65536))
    (call $reply))
  (export "canister_init" (func $init))
  (export "canister_pre_upgrade" (func $pre_upgrade))
  (export "canister_post_upgrade" (func $begin))
  (export "canister_query heap" (func $heap))
  (export "canister_query stable" (func $stable))
  (export "canister_update go" (func $go))
  (export "canister_query get" (func $get))
  (export "canister_global_timer" (func $timer)))

;; The canister of the mixes. Every update and callback counts one; replies are the eight bytes of the count unless it is said otherwise.
;;   increment             counts
;;   visit <tree>          calls `visit` of each child with the child's tree, and replies when all have answered.
;;                         tree = <u8 children>, and for each child <10-byte id> <u16 bytes> <tree>
;;   scan <u32 bytes> <u32 stride> <u32 writes>
;;                         adds up the words of the heap that are so far apart, and replies with the sum; if it writes, it adds one to the first
;;                         word of each 64 KiB that it passes. `sum` is the same as a query
;;   arm <u64 ns> <u64 n>  sets a timer that counts n times, so many nanoseconds apart
;;   put <bytes>           keeps the argument, and replies with its length
;;   get                   replies with the count
;; `canister_init` takes a u32, the number of pages that it adds to the memory and fills: what `scan` reads.
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_data_append" (func $call_append (param i32 i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (import "ic0" "time" (func $time (result i64)))
  ;; 0 the count, 8 a reply's number, 16 a timer's period and 24 how often it will count, 64 a method's name, from 1 KiB on the open visits:
  ;; how many answers each waits for; from 64 KiB on the argument, from 4 MiB on what is scanned.
  (memory 64)
  (table 1 funcref)
  (elem (i32.const 0) $answered)
  (data (i32.const 64) "visit")
  (global $last (mut i32) (i32.const 0))
  (func $count (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1))))
  (func $finish (param $at i32)
    (call $append (local.get $at) (i32.const 8))
    (call $reply))
  (func $argument (call $arg_copy (i32.const 65536) (i32.const 0) (call $arg_size)))
  (func $init (local $at i32) (local $end i32)
    (if (i32.lt_u (call $arg_size) (i32.const 4)) (then (return)))
    (call $argument)
    (if (i32.eq (memory.grow (i32.load (i32.const 65536))) (i32.const -1)) (then unreachable))
    (local.set $at (i32.const 4194304))
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return)))
      (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next)))
  (func $increment (call $count) (call $finish (i32.const 0)))
  (func $get (call $finish (i32.const 0)))
  ;; A visit that waits for nothing: its place behind 1 KiB.
  (func $vacant (result i32) (local $tries i32)
    (loop $next
      (global.set $last (i32.and (i32.add (global.get $last) (i32.const 4)) (i32.const 0x3ffc)))
      (if (i32.eqz (i32.load offset=1024 (global.get $last))) (then (return (global.get $last))))
      (local.set $tries (i32.add (local.get $tries) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $tries) (i32.const 4096))))
    unreachable)
  (func $visit (local $at i32) (local $children i32) (local $visit i32) (local $waits i32) (local $bytes i32)
    (call $count)
    (call $argument)
    (local.set $children (i32.load8_u (i32.const 65536)))
    (local.set $visit (call $vacant))
    (local.set $at (i32.const 65537))
    (block $called
      (loop $next
        (br_if $called (i32.eqz (local.get $children)))
        (local.set $bytes (i32.load16_u offset=10 (local.get $at)))
        (call $call_new (local.get $at) (i32.const 10) (i32.const 64) (i32.const 5)
                        (i32.const 0) (local.get $visit) (i32.const 0) (local.get $visit))
        (call $call_append (i32.add (local.get $at) (i32.const 12)) (local.get $bytes))
        (if (i32.eqz (call $call_perform)) (then (local.set $waits (i32.add (local.get $waits) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.add (i32.const 12) (local.get $bytes))))
        (local.set $children (i32.sub (local.get $children) (i32.const 1)))
        (br $next)))
    (i32.store offset=1024 (local.get $visit) (local.get $waits))
    (if (i32.eqz (local.get $waits)) (then (call $finish (i32.const 0)))))
  (func $answered (param $visit i32) (local $waits i32)
    (call $count)
    (local.set $waits (i32.sub (i32.load offset=1024 (local.get $visit)) (i32.const 1)))
    (i32.store offset=1024 (local.get $visit) (local.get $waits))
    (if (i32.eqz (local.get $waits)) (then (call $finish (i32.const 0)))))
  (func $scan (local $at i32) (local $end i32) (local $stride i32) (local $writes i32) (local $sum i64)
    (call $count)
    (call $argument)
    (local.set $at (i32.const 4194304))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 65536))))
    (local.set $stride (i32.load (i32.const 65540)))
    (local.set $writes (i32.load (i32.const 65544)))
    (block $passed
      (loop $next
        (br_if $passed (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $sum (i64.add (local.get $sum) (i64.load (local.get $at))))
        (if (i32.and (local.get $writes) (i32.eqz (i32.and (local.get $at) (i32.const 0xffff))))
          (then (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (i64.const 1)))))
        (local.set $at (i32.add (local.get $at) (local.get $stride)))
        (br $next)))
    (i64.store (i32.const 8) (local.get $sum))
    (call $finish (i32.const 8)))
  (func $set_timer (drop (call $timer_set (i64.add (call $time) (i64.load (i32.const 16))))))
  (func $arm
    (call $count)
    (call $arg_copy (i32.const 16) (i32.const 0) (i32.const 16))
    (call $set_timer)
    (call $finish (i32.const 0)))
  (func $timer
    (call $count)
    (i64.store (i32.const 24) (i64.sub (i64.load (i32.const 24)) (i64.const 1)))
    (if (i64.gt_s (i64.load (i32.const 24)) (i64.const 0)) (then (call $set_timer))))
  (func $put
    (call $count)
    (call $argument)
    (i64.store (i32.const 8) (i64.extend_i32_u (call $arg_size)))
    (call $finish (i32.const 8)))
  (export "canister_init" (func $init))
  (export "canister_global_timer" (func $timer))
  (export "canister_update increment" (func $increment))
  (export "canister_update visit" (func $visit))
  (export "canister_update scan" (func $scan))
  (export "canister_update arm" (func $arm))
  (export "canister_update put" (func $put))
  (export "canister_query sum" (func $scan))
  (export "canister_query get" (func $get)))

import Prim "mo:⛔";

persistent actor {
  var count : Nat = 0;

  public func increment() : async Nat {
    count += 1;
    count;
  };

  public func incrementThenTrap() : async () {
    count += 1;
    Prim.trap("after the write");
  };

  public query func get() : async Nat {
    count;
  };
};

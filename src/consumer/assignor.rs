//! Who reads which partition: pure plans.

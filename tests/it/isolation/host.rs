//! What the probe finds.

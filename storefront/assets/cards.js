// The test cards of payment-service. What each does is in the texts: `card.<token>`.

export const CARDS = [
  'tok_visa',
  'tok_declined',
  'tok_insufficient_funds',
  'tok_slow',
  'tok_flaky',
  'tok_timeout_after_charge',
  'tok_capture_declined',
  'tok_capture_flaky',
  'tok_busy',
  'tok_other_amount',
];

// What must hold of every run of `torture -- backup`, whatever was done. Each complaint has a kind.

/** The gravest first. */
export const COMPLAINTS = [
  'wrong restore',
  'lost write',
  'guest held',
  'run lost',
  'good run refused',
  'damage not found',
  'wrong answer',
  'no next backup',
  'left over',
  'not at rest',
  'internal error',
  'hang',
  'harness',
] as const;

export interface Complaint {
  readonly kind: (typeof COMPLAINTS)[number];
  readonly text: string;
}

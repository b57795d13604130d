// How often each act was drawn, and how it went.

export interface Tally<K> {
  readonly kind: K;
  readonly drawn: number;
  readonly done: number;
  readonly refused: number;
  readonly struck: number;
  readonly idle: number;
}

export function tally<K>(
  kind: K,
  steps: readonly { readonly kind: K; readonly outcome: 'done' | 'refused' | 'struck' | 'idle' }[],
): Tally<K> {
  const own = steps.filter((step) => step.kind === kind);
  const of = (outcome: (typeof own)[number]['outcome']): number =>
    own.filter((step) => step.outcome === outcome).length;
  return {
    kind,
    drawn: own.length,
    done: of('done'),
    refused: of('refused'),
    struck: of('struck'),
    idle: of('idle'),
  };
}

/** In how many runs each kind was complained of; `kinds`: the gravest first. */
export function countComplaints<K>(
  kinds: readonly K[],
  runs: readonly { readonly complaints: readonly { readonly kind: K }[] }[],
): [K, number][] {
  return kinds
    .map((kind): [K, number] => [
      kind,
      runs.filter(({ complaints }) => complaints.some((each) => each.kind === kind)).length,
    ])
    .filter(([, count]) => count > 0);
}

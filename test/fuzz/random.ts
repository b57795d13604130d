// Makes chance that can be repeated. Every input has a generator of its own, made from the run's seed, its target and its
// number: one input can be made again without the others.

export interface Random {
  /** 0 to `limit` - 1. */
  below(limit: number): number;
  /** True once in `times`. */
  once(times: number): boolean;
  pick<T>(list: readonly T[]): T;
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193);
  return value >>> 0;
}

/** mulberry32, begun from the words. */
export function makeRandom(...words: readonly (string | number)[]): Random {
  let state = hash(words.join('/'));
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (limit: number): number => next() % limit;
  return {
    below,
    once: (times) => below(times) === 0,
    pick: (list) => {
      const found = list[below(list.length)];
      if (found === undefined) throw new Error('expected a list with something in it');
      return found;
    },
  };
}

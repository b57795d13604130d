// What draws are made with.

export class Dice {
  readonly #next: () => number;

  constructor(next: () => number) {
    this.#next = next;
  }

  /** 0 to 1. */
  part(): number {
    return this.#next();
  }

  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  whole(from: number, to: number): number {
    return from + Math.floor(this.#next() * (to - from + 1));
  }

  of<T>(weights: readonly (readonly [T, number])[]): T {
    let left = this.#next() * weights.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [item, weight] of weights) {
      left -= weight;
      if (left < 0) return item;
    }
    throw new Error('nothing to draw from');
  }
}

// Every run that is listed restores to what the disks held at its cut.
import { expect } from 'vitest';

interface BackedUp {
  listed(): Promise<string[]>;
  differences(run: string): Promise<readonly string[]>;
}

export async function expectAllGood(vm: BackedUp): Promise<void> {
  for (const run of await vm.listed()) expect(await vm.differences(run), run).toEqual([]);
}

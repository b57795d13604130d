// A provider that cuts nothing and tells what it was asked for.
import type { Made, Probe, Provider, Snapshot, SnapshotStatus } from '../../src/snapshot/providers/provider.js';
import type { Volume } from '../../src/snapshot/volume.js';

export interface FakeProvider extends Provider {
  /** In order. */
  readonly calls: string[];
  /** What is there. */
  there: Made[];
  status: SnapshotStatus;
  /** What `extend` answers. */
  hasRoom: boolean;
  /** What cannot be removed. */
  stuck: string | undefined;
}

export interface FakeOptions {
  readonly underFreeze?: boolean;
  /** Mount points that it takes; without it all. */
  readonly only?: readonly string[];
  readonly listsAll?: boolean;
}

export function fakeProvider(
  name: string,
  { underFreeze = true, only, listsAll = true }: FakeOptions = {},
): FakeProvider {
  const calls: string[] = [];
  const say = async (text: string): Promise<void> => {
    calls.push(text);
    await Promise.resolve();
  };
  const provider: FakeProvider = {
    name,
    calls,
    listsAll,
    there: [],
    status: { state: 'whole' },
    hasRoom: true,
    stuck: undefined,
    async probe({ mountpoint }): Promise<Probe> {
      await say(`probe ${mountpoint}`);
      if (only?.includes(mountpoint) === false) return { fits: false, reason: `${name} has not ${mountpoint}` };
      return { fits: true, underFreeze };
    },
    async plan(run, volumes) {
      await say(`plan ${volumes.map(({ mountpoint }) => mountpoint).join(' ')}`);
      return volumes.map((volume) => fakeSnapshot(provider, run, volume, underFreeze));
    },
    made: async () => await Promise.resolve(provider.there),
    async removeLeft({ name: left }) {
      await say(`remove ${left}`);
      if (provider.stuck === left) throw new Error('in use');
      provider.there = provider.there.filter((made) => made.name !== left);
    },
    close: async () => {
      await Promise.resolve();
    },
  };
  return provider;
}

function fakeSnapshot(provider: FakeProvider, run: string, volume: Volume, underFreeze: boolean): Snapshot {
  const name = `${provider.name}${volume.mountpoint}@${run}`;
  const say = async (text: string): Promise<void> => {
    provider.calls.push(`${text} ${volume.mountpoint}`);
    await Promise.resolve();
  };
  return {
    volume,
    provider: provider.name,
    name,
    worker: undefined,
    underFreeze,
    waitsForUdev: false,
    arm: async () => {
      await say('arm');
    },
    cut: async () => {
      await say('cut');
    },
    disarm: async () => {
      await say('disarm');
      return true;
    },
    mount: async () => {
      await say('mount');
      return { device: `/dev/${provider.name}${volume.device}`, type: volume.type, options: ['ro'] };
    },
    status: async () => {
      await Promise.resolve();
      return provider.status;
    },
    extend: async () => {
      await say('extend');
      return provider.hasRoom;
    },
    remove: async () => {
      await say('remove');
    },
  };
}

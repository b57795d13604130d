// Looks into filesystems that hang: none takes the threads of all others.
import { expect, test } from 'vitest';
import { Looks } from '../../../../src/agent/handlers/looks.js';
import { DeadlineError } from '../../../../src/errors.js';

const LIMIT_MS = 30;
const hang = (): { readonly look: () => Promise<string>; readonly end: () => void } => {
  let end = (): void => undefined;
  const hung = new Promise<string>((resolve) => {
    end = () => {
      resolve('late');
    };
  });
  return { look: () => hung, end };
};

test('asked again and again, there is one look at a mount that hangs, and all others are answered', async () => {
  const looks = new Looks(LIMIT_MS);
  let begun = 0;
  const { look, end } = hang();
  const counted = (): Promise<string> => {
    begun++;
    return look();
  };
  await expect(looks.at('/hung', counted)).rejects.toThrow(DeadlineError);
  for (let call = 0; call < 100; call++) {
    await expect(looks.at('/hung', counted)).rejects.toThrow(DeadlineError);
    expect(await looks.at('/', () => Promise.resolve(call))).toBe(call);
  }
  expect(begun).toBe(1);
  end();
  await expect
    .poll(async () => await looks.at('/hung', () => Promise.resolve('well')).catch(() => 'late'))
    .toBe('well');
});

test('many at once wait for their turn, and are all answered', async () => {
  const looks = new Looks(10_000);
  let [now, most] = [0, 0];
  const look = async (): Promise<void> => {
    most = Math.max(most, ++now);
    await new Promise(setImmediate);
    now--;
  };
  await Promise.all(
    Array.from({ length: 200 }, async (_none, place) => {
      await looks.at(`/${place % 50}`, look);
    }),
  );
  expect([now, most]).toEqual([0, 3]);
});

test('three mounts that hang leave a thread: what comes then is refused at once', async () => {
  const looks = new Looks(LIMIT_MS);
  const hung = ['/a', '/b', '/c'].map((place) => ({ place, ...hang() }));
  await Promise.allSettled(hung.map(({ place, look }) => looks.at(place, look)));
  let begun = false;
  const fourth = looks.at('/d', () => {
    begun = true;
    return Promise.resolve();
  });
  await expect(fourth).rejects.toThrow('/d');
  expect(begun).toBe(false);
  hung[0]?.end();
  await expect.poll(async () => await looks.at('/d', () => Promise.resolve('well')).catch(() => 'late')).toBe('well');
});

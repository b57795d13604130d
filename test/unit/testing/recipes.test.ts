// Recipes of guests, and what is refused before a guest is made of one.
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { bootGuest } from '../../../src/testing/boot.js';
import { guestImage } from '../../../src/testing/image.js';
import { guestParts, readRecipe, recipeFile } from '../../../src/testing/recipes.js';

test('a name that no recipe has is refused with those there are', async () => {
  const message = 'guest image: expected one of debian-12, debian-13, debian-sid, podman-debian-12, found debian-99';
  await expect(guestImage('debian-99')).rejects.toMatchObject({ name: 'UsageError', code: 'E_RECIPE', message });
  await expect(guestImage('../kernels')).rejects.toMatchObject({ code: 'E_RECIPE' });
});

test('every recipe can be read, and has what a fixture needs in its guest', async () => {
  const names = (await readdir(recipeFile('recipes'))).map((file) => path.basename(file, '.json'));
  for (const name of names) {
    const recipe = await readRecipe(name);
    expect(recipe.packages).toEqual(expect.arrayContaining(['qemu-guest-agent', 'systemd-sysv', 'udev']));
    expect(recipe.disks[0]).toMatchObject({ name: 'root', filesystem: 'ext4' });
  }
});

test('the parts of a guest are named with their modes, so that one that is no more executable is another guest', async () => {
  const parts = await guestParts();
  const at = parts.indexOf('customize.sh');
  expect(parts[at + 1]).toBe('x');
  expect(parts[parts.indexOf('finish.sh') + 2]?.toString()).toContain('#!/bin/sh');
});

test('what a kind of guest cannot do is refused with the kind that can, before anything is built', async () => {
  await expect(bootGuest({ kind: 'user-mode', needs: ['monitor'] })).rejects.toMatchObject({
    name: 'UsageError',
    code: 'E_CAPABILITY',
    message: 'a guest of kind user-mode has not a QMP monitor (monitor); boot one of kind qemu',
  });
  const refused = { code: 'E_CAPABILITY' };
  await expect(bootGuest({ kind: 'user-mode', cpus: 2 })).rejects.toMatchObject(refused);
  await expect(bootGuest({ kind: 'qemu', kernel: '6.12' })).rejects.toMatchObject(refused);
  await expect(bootGuest({ needs: ['shared-folder'] })).rejects.toMatchObject(refused);
  const other = bootGuest({ kind: 'container' as 'qemu' });
  await expect(other).rejects.toMatchObject({
    code: 'E_GUEST_KIND',
    message: 'guest: expected kind qemu or user-mode, found container',
  });
});

// The applications, and the recipes of the guests that have them.
import type { EngineFor } from './engine.js';
import { mariadb, mysql } from './engines/mysql.js';
import { postgresql } from './engines/postgresql.js';
import { redis, valkey } from './engines/redis.js';
import { sqlite } from './engines/sqlite.js';

const known = { mariadb, mysql, postgresql, redis, sqlite, valkey } as const satisfies Record<string, EngineFor>;
export type EngineName = keyof typeof known;
export const engineFor: Readonly<Record<EngineName, EngineFor>> = known;

export const RECIPES = {
  'debian-12': ['mariadb', 'postgresql', 'redis', 'sqlite'],
  'debian-13': ['mariadb', 'postgresql', 'sqlite', 'valkey'],
  'debian-sid': ['mysql', 'postgresql'],
} as const satisfies Record<string, readonly EngineName[]>;
export type RecipeName = keyof typeof RECIPES;

export function isEngine(name: string): name is EngineName {
  return Object.hasOwn(known, name);
}

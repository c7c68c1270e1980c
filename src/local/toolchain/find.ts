import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import type { Recipe } from './recipes.ts';

/** The program called `name` in the first of `folders` that has it. */
export function findProgram(name: string, folders: readonly string[]): string | undefined {
  return folders.map((folder) => join(folder, name)).find(isProgram);
}

export function pathFolders(environment: NodeJS.ProcessEnv): string[] {
  return (environment.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
}

/**
 * Where the machine already has every program of `recipe`, in a version that will do: in KUBEBUILDER_ASSETS or on
 * PATH. Undefined when one is missing or of a version that will not do.
 */
export async function findOnMachine(recipe: Recipe, environment: NodeJS.ProcessEnv): Promise<string[] | undefined> {
  const folders = [environment.KUBEBUILDER_ASSETS ?? [], pathFolders(environment)].flat();
  const programs = recipe.programs.map((program) => findProgram(program, folders));
  if (!programs.every((program) => program !== undefined)) return undefined;
  const versions = await Promise.all(programs.map((program) => versionOf(program, recipe.onPath.args)));
  const acceptable = versions.every((output) => recipe.onPath.accepts(output));
  return acceptable && new Set(versions.map(minorVersion)).size === 1 ? programs : undefined;
}

/** The programs of an earlier installation in `folder`, when all of them are there. */
export function findInstalled(recipe: Recipe, folder: string): string[] | undefined {
  const programs = recipe.programs.map((program) => join(folder, program));
  return programs.every(isProgram) ? programs : undefined;
}

async function versionOf(program: string, args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await execa(program, args, { reject: false, timeout: 10_000 });
  return `${stdout}\n${stderr}`;
}

function minorVersion(output: string): string | undefined {
  return /\d+\.\d+/.exec(output)?.[0];
}

function isProgram(path: string): boolean {
  if (!existsSync(path) || !statSync(path).isFile()) return false;
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

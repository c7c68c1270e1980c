import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const MODULE = new URL('../src/freeze-intrinsics.ts', import.meta.url).href;

/** In a process of its own: what is frozen stays so. */
async function inFrozenProcess(code: string): Promise<unknown> {
  const text = `await import(${JSON.stringify(MODULE)}); console.log(JSON.stringify(await (async () => { ${code} })()));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', text]);
  return JSON.parse(stdout);
}

test('no path of names changes what all objects share', async () => {
  const answer = await inFrozenProcess(`
    const refused = (change) => { try { change(); return false; } catch (error) { return error instanceof TypeError; } };
    const path = (names, value) => {
      let at = {};
      for (const name of names.slice(0, -1)) at = at[name] ??= {};
      at[names.at(-1)] = value;
    };
    path(['__proto__', 'get'], true);
    return [
      refused(() => path(['constructor', 'prototype', 'get'], true)),
      refused(() => { Object.prototype.toString = () => 'x'; }),
      refused(() => { Array.prototype.map = () => []; }),
      refused(() => { Function.prototype.call = () => 1; }),
      refused(() => { [].constructor.prototype.x = 1; }),
      'get' in {}, '__proto__' in {}, String({}),
    ];`);
  expect(answer).toEqual([true, true, true, true, true, false, false, '[object Object]']);
});

test('objects of one’s own may have what prototypes have', async () => {
  const answer = await inFrozenProcess(`
    const own = {};
    own.toString = () => 'mine'; own.constructor = 1; own.hasOwnProperty = 2;
    const error = new TypeError('x'); error.name = 'Mine'; error.message = 'y';
    function Old() {} Old.prototype = Object.create(Error.prototype); Old.prototype.constructor = Old; Old.prototype.name = 'Old';
    class List extends Array {} class Failure extends Error { name = 'Failure'; }
    return [String(own), own.constructor, own.hasOwnProperty, String(error), new Old().name, new List(3).length, String(new Failure('z'))];`);
  expect(answer).toEqual(['mine', 1, 2, 'Mine: y', 'Old', 3, 'Failure: z']);
});

test.each(['src/worker.ts', 'src/server.ts'])('%s freezes them before anything else is loaded', (file) => {
  const imports = readFileSync(file, 'utf8').match(/^import .*$/gm);
  expect(imports?.[0]).toBe("import './freeze-intrinsics.ts';");
});

import { readFileSync, renameSync, writeFileSync } from 'node:fs';

interface Book {
  /** Offset of the last address handed out, so that a freed address rests before it is used again. */
  cursor: number;
  pods: Record<string, string>;
}

/**
 * Gives every pod name an address of its own and remembers it: a StatefulSet's pod comes back under the address its peers
 * know, and the bootstrap address of pod 0 is known before pod 0 exists.
 */
export class AddressBook {
  readonly #file: string;
  readonly #base: number;
  readonly #size: number;
  readonly #book: Book;

  /** @throws Error when the range isn't an IPv4 CIDR of /8 to /28 inside 127.0.0.0/8. */
  constructor(file: string, cidr: string) {
    const match = /^127\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(cidr);
    const bits = Number(match?.[4]);
    if (!match || !(bits >= 8 && bits <= 28)) throw new Error(`Pod range ${cidr} is not a 127.x.x.x/8 to /28 range`);
    this.#file = file;
    this.#size = 2 ** (32 - bits);
    const address = [127, ...match.slice(1, 4).map(Number)].reduce((sum, octet) => sum * 256 + octet, 0);
    this.#base = address - (address % this.#size);
    this.#book = this.#load();
  }

  /** The pod's address, the same at every call until its namespace is gone. */
  addressOf(namespace: string, pod: string): string {
    const key = `${namespace}/${pod}`;
    const known = this.#book.pods[key];
    if (known) return known;
    const taken = new Set(Object.values(this.#book.pods));
    for (let step = 1; step <= this.#size; step++) {
      const offset = (this.#book.cursor + step) % this.#size;
      const candidate = dotted(this.#base + offset);
      // .0 and .255 look like network and broadcast addresses to some tools.
      if (/\.(0|255)$/.test(candidate) || candidate === '127.0.0.1' || taken.has(candidate)) continue;
      this.#book.cursor = offset;
      this.#book.pods[key] = candidate;
      this.#save();
      return candidate;
    }
    throw new Error(`No free pod address left in ${dotted(this.#base)}, ${taken.size} in use`);
  }

  /** Frees the addresses of every namespace that is not in the set. */
  keepOnly(namespaces: ReadonlySet<string>): void {
    this.#drop((namespace) => !namespaces.has(namespace));
  }

  /** Frees the addresses of one namespace. */
  free(namespace: string): void {
    this.#drop((candidate) => candidate === namespace);
  }

  #drop(isGone: (namespace: string) => boolean): void {
    const gone = Object.keys(this.#book.pods).filter((key) => isGone(key.slice(0, key.indexOf('/'))));
    if (gone.length === 0) return;
    for (const key of gone) delete this.#book.pods[key];
    this.#save();
  }

  #load(): Book {
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { cursor: 0, pods: {} };
      throw error;
    }
    const book = JSON.parse(text) as Book;
    // The range may have been configured anew; addresses outside of it would collide with another stack's.
    const inside = ([, ip]: [string, string]) => {
      const offset = ip.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0) - this.#base;
      return offset >= 0 && offset < this.#size;
    };
    return { cursor: book.cursor % this.#size, pods: Object.fromEntries(Object.entries(book.pods).filter(inside)) };
  }

  #save(): void {
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#book, undefined, 1));
    renameSync(`${this.#file}.new`, this.#file);
  }
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

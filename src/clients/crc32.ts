/** CRC32 as S3 and zlib compute it: the checksum of a whole from those of its parts, without a second pass. */

/** The polynomial, least significant bit first. */
const POLYNOMIAL = 0xedb88320;

/** x^(2^n) modulo the polynomial; the powers repeat after 32. */
const POWERS: readonly number[] = powers();

function powers(): number[] {
  const table = [0x40000000];
  for (let n = 1; n < 32; n += 1) table.push(multiply(table[n - 1] ?? 0, table[n - 1] ?? 0));
  return table;
}

/** The product of two polynomials over GF(2), modulo the CRC's polynomial. */
function multiply(a: number, b: number): number {
  let product = 0;
  let factor = b;
  for (let bit = 31; bit >= 0; bit -= 1) {
    if ((a >>> bit) & 1) product ^= factor;
    factor = factor & 1 ? (factor >>> 1) ^ POLYNOMIAL : factor >>> 1;
  }
  return product >>> 0;
}

/**
 * The CRC32 of two byte strings after each other.
 *
 * @param first of the first string
 * @param second of the second string
 * @param length bytes of the second string
 */
export function combineCrc32(first: number, second: number, length: number): number {
  // Appending n bytes multiplies by x^(8n): by square and multiply over the bits of n, from x^(2^3) on.
  let shifted = first >>> 0;
  for (let rest = length, n = 3; rest > 0; rest = Math.floor(rest / 2), n += 1) {
    if (rest % 2 === 1) shifted = multiply(POWERS[n % 32] ?? 0, shifted);
  }
  return (shifted ^ second) >>> 0;
}

/** As S3 writes it. */
export function base64Crc32(crc: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(crc >>> 0);
  return bytes.toString('base64');
}

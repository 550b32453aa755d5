/**
 * Calls `work` with all items that came while the call before was under way, at most `maxSize` of them, or one that is larger; an item
 * that finds no call under way does not wait. One call is under way at a time; its error is the error of all its items.
 */
export function inGroups<Item, Result>(
  work: (items: Item[]) => Promise<Result[]>,
  maxSize: number,
  sizeOf: (item: Item) => number = () => 1,
): (item: Item) => Promise<Result> {
  const waiting: { item: Item; resolve: (result: Result) => void; reject: (error: unknown) => void }[] = [];
  let isUnderWay = false;

  function takeGroup(): typeof waiting {
    let size = 0;
    const end = waiting.findIndex(({ item }, at) => {
      size += sizeOf(item);
      return at > 0 && size > maxSize;
    });
    return waiting.splice(0, end < 0 ? waiting.length : end);
  }

  async function workThrough(): Promise<void> {
    isUnderWay = true;
    while (waiting.length > 0) {
      const group = takeGroup();
      try {
        const results = await work(group.map(({ item }) => item));
        group.forEach(({ resolve }, i) => {
          resolve(results[i]!);
        });
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    isUnderWay = false;
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      if (!isUnderWay) void workThrough();
    });
}

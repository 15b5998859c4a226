#!/usr/bin/env bash
# Builds akin for NVIDIA GPUs where there is neither a GPU nor CUDA, from PyPI and crates.io alone. The program starts
# with or without a GPU: every CUDA library is opened on first use. How it works, and what it needs where it runs:
# docs/gpu.md.
#
#   cargo fetch                             first, in the project (setup reads cudarc's sources)
#   tools/build-cuda.sh setup               assemble the toolkit once (108 MB to download, 0.4 GB on disk), in $CUDA13
#   tools/build-cuda.sh cargo build --release --features flash   run cargo with the right environment
#   tools/build-cuda.sh check BINARY        libraries needed, size, GPU code inside
#
# Settings (environment):
#   CUDA13=DIR      where the toolkit lives (default ~/.cache/cuda13)
#   KERNELS=slim    (default) compile only the kernels a float model needs: candle's GGUF and mixture-of-experts kernels, and
#                   every flash-attention kernel except head size 64 without mask, become stubs that stop the program when called.
#   KERNELS=full    compile everything
#   NVCC_CACHE=DIR  object cache kept between builds and cargo cleans (default $CUDA13/cache)
#   LINK=lazy       (default) no CUDA library among the program's needs; LINK=stub: ordinary dynamic linking against stubs
set -euo pipefail
C=${CUDA13:-$HOME/.cache/cuda13}
CUTLASS=7d49e6c7e2f8896c47f586706e67e1fb215529dc   # the commit that candle-flash-attn 0.11.1 asks for: CUTLASS 3.5.0
PYTHON=${PYTHON:-python3}

setup() {
  mkdir -p "$C"
  # 13.0 exactly: drivers from 580 on read its PTX, and the names of its libraries end in .so.13
  "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 --platform any -d "$C/wheels" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cutlass==3.5.0.0
  "$PYTHON" - "$C" <<'PY'
import glob,os,shutil,sys,zipfile
c=sys.argv[1]; u=c+"/unpacked"
for w in glob.glob(c+"/wheels/*.whl"):
    z=zipfile.ZipFile(w)
    for n in z.namelist():
        if n.startswith("nvidia/cu13/") or n.startswith(("cutlass_library/source/include/","cutlass_library/source/tools/util/include/")): z.extract(n,u)
shutil.rmtree(c+"/cuda",ignore_errors=True); shutil.move(u+"/nvidia/cu13",c+"/cuda")
shutil.rmtree(c+"/cutlass",ignore_errors=True); shutil.move(u+"/cutlass_library/source",c+"/cutlass"); shutil.rmtree(u)
for d in("bin","nvvm/bin"):
    for f in os.listdir(f"{c}/cuda/{d}"):
        p=f"{c}/cuda/{d}/{f}"
        if os.path.isfile(p): os.chmod(p,0o755)
os.symlink("lib",c+"/cuda/lib64")
PY
  # candle-flash-attn's build script wants CUTLASS in this folder, at that commit: the wheel's headers are the same files
  local d=$C/forge/git/checkouts/cutlass-${CUTLASS:0:16}
  rm -rf "$d"; mkdir -p "$d"; git init -q "$d"; cp -r "$C/cutlass/include" "$C/cutlass/tools" "$d"; echo "$CUTLASS" > "$d/.git/HEAD"
  wrapper; links
  "$C/cuda/bin/nvcc" --version | tail -2
}

wrapper() { # nvcc with a cache and, for KERNELS=slim, stubs
  mkdir -p "$C/wrap"
  cat > "$C/wrap/nvcc" <<'SH'
#!/bin/bash
here=$(dirname "$(readlink -f "$0")"); real=$here/../cuda/bin/nvcc
out= src= dir= prev= obj=
for a in "$@"; do
  case $prev in -o) out=$a;; --output-directory) dir=$a;; esac
  case $a in *.cu) src=$a;; -c) obj=1;; esac; prev=$a
done
[ -n "$src" ] && [ "$src" != "$out" ] || exec "$real" "$@"
[ -n "$out" ] || out=$dir/$(basename "${src%.cu}").ptx
name=$(basename "$src")
if [ "${KERNELS:-slim}" = slim ]; then
  t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
  if [ -z "$obj" ]; then case $name in quantized.cu) printf '.version 9.0\n.target sm_90\n.address_size 64\n' > "$out"; exit;; esac
  else case $name in
    moe_gguf.cu) # stands for the whole of candle-kernels' static library
      { echo '#include <stdio.h>'; echo '#include <stdlib.h>'
        grep -oE 'pub fn [a-z][A-Za-z0-9_]*\(' "$(dirname "$src")/../ffi.rs" | sed -E 's/pub fn ([A-Za-z0-9_]+)\(/void \1(void){fputs("\1: not in this build (KERNELS=full)\\n",stderr);abort();}/'
      } > "$t/s.c"; exec cc -O1 -fPIC -c "$t/s.c" -o "$out";;
    moe_*.cu|mmvq_*.cu|mmq_*.cu) : > "$t/s.c"; cc -fPIC -c "$t/s.c" -o "$out"; exit;;
    flash_fwd_hdim64_*_sm80.cu|flash_api.cu) case $name in *causal*) :;; *) keep=1;; esac;;
  esac
  case $name in flash_fwd_*) if [ -z "${keep:-}" ]; then
    { printf '#include <cstdio>\n#include <cstdlib>\n#include <cuda_runtime.h>\n#include "flash.h"\nnamespace cutlass { struct half_t; struct bfloat16_t; }\n'
      grep -E '^(template<>|void run_mha_fwd)' "$src" | sed -E 's/\{ *$/{ fputs("flash attention: not in this build (KERNELS=full)\\n",stderr); abort(); }/'
    } > "$t/s.cpp"; c++ -std=c++17 -O1 -fPIC -I"$(dirname "$src")" -I"$here/../cuda/include" -c "$t/s.cpp" -o "$out"; exit; fi
    # DINOv2 needs none of these variants; each one left in doubles the compile time
    set -- "$@" -DFLASHATTENTION_DISABLE_ALIBI -DFLASHATTENTION_DISABLE_SOFTCAP -DFLASHATTENTION_DISABLE_LOCAL -DFLASHATTENTION_DISABLE_UNEVEN_K -DFLASHATTENTION_DISABLE_DROPOUT;; esac
  fi
fi
cache=${NVCC_CACHE:-$here/../cache}; mkdir -p "$cache"
key=$({ printf '%s\n' "$@" | grep -vF -e "$out" -e "${dir:-$out}"; "$real" --version
  find "$(dirname "$src")" "$(dirname "$src")/.." -maxdepth 1 -type f \( -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.hpp' \) -print0 | sort -z | xargs -0 cat; } | sha256sum | cut -c1-40)
if [ -f "$cache/$key" ]; then cp "$cache/$key" "$out"; else
  s=$SECONDS; "$real" "$@" || exit; cp "$out" "$cache/$key.$$"; mv "$cache/$key.$$" "$cache/$key"
  echo "$name $((SECONDS-s)) s" >> "$cache/log"
fi
SH
  chmod +x "$C/wrap/nvcc"
}

links() { # what the linker finds under -lcuda -lcublas -lcublasLt -lcurand -lnvrtc -lcudart
  local src; src=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.* 2>/dev/null | sort -V | tail -1 || true)
  [ -n "$src" ] || { echo "run 'cargo fetch' in the project first (cudarc's sources are needed), then setup again" >&2; exit 1; }
  "$PYTHON" - "$src" "$C/link" <<'PY'
import os,pathlib,re,subprocess,sys
src,out=map(pathlib.Path,sys.argv[1:3])
# name, cudarc module, files looked for at run time, the error its functions return when there is no such file
LIBS=[("cuda","driver",["libcuda.so.1"],100),("cublas","cublas",["libcublas.so.13"],1),("cublasLt","cublaslt",["libcublasLt.so.13"],1),
      ("curand","curand",["libcurand.so.10"],203),("nvrtc","nvrtc",["libnvrtc.so.13"],7)]
for d in("lazy","stub"): (out/d).mkdir(parents=True,exist_ok=True)
for name,mod,files,err in LIBS:
    text=(src/"src"/mod/"sys"/"mod.rs").read_text()
    syms=sorted({s for s in re.findall(r"pub (?:unsafe )?fn (\w+)\s*\(",text) if re.match(r"(cu|cublas|curand|nvrtc)[A-Z]",s)})
    st=out/"stub"/f"{name}.c"; st.write_text("".join(f"int {s}(void){{return {err};}}\n" for s in syms))
    subprocess.check_call(["gcc","-shared","-fPIC","-o",out/"stub"/f"lib{name}.so",f"-Wl,-soname,{files[0]}",st]); st.unlink()
    p="lazy_"+name
    a=[".text"]+[f".globl {s}\n.type {s},@function\n{s}:\n endbr64\n movq {p}_slots+{8*i}(%rip),%r11\n testq %r11,%r11\n jz 1f\n jmp *%r11\n1: movl ${i},%r11d\n jmp {p}_bind" for i,s in enumerate(syms)]
    ints=["rdi","rsi","rdx","rcx","r8","r9","rax"]
    save="".join(f" movq %{r},{8*i}(%rsp)\n" for i,r in enumerate(ints))+"".join(f" movdqu %xmm{i},{64+16*i}(%rsp)\n" for i in range(8))
    load="".join(f" movq {8*i}(%rsp),%{r}\n" for i,r in enumerate(ints))+"".join(f" movdqu {64+16*i}(%rsp),%xmm{i}\n" for i in range(8))
    a.append(f"{p}_bind:\n pushq %rbp\n movq %rsp,%rbp\n andq $-16,%rsp\n subq $192,%rsp\n{save} movl %r11d,%edi\n call {p}_resolve\n movq %rax,%r11\n{load} movq %rbp,%rsp\n popq %rbp\n jmp *%r11\n.section .note.GNU-stack,\"\",@progbits\n")
    special=pick=""
    if name=="cuda":
        special='static int text(int e,const char**p){(void)e;if(p)*p="libcuda.so.1 is not on this machine";return 0;}'
        pick='if(!strcmp(names[i],"cuGetErrorName")||!strcmp(names[i],"cuGetErrorString"))return (void*)text;'
    q=lambda l:",".join(f'"{x}"' for x in l)
    code=f'''#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <pthread.h>
static const char*const names[]={{{q(syms)}}},*const files[]={{{q(files)}}};
__attribute__((visibility("hidden"))) void*{p}_slots[{len(syms)}];
static int missing(void){{return {err};}}
{special}
static void*lib; static pthread_once_t once=PTHREAD_ONCE_INIT;
static void find(void){{
 for(unsigned i=0;i<sizeof files/sizeof*files&&!lib;i++){{
  lib=dlopen(files[i],RTLD_NOW|RTLD_GLOBAL);
  for(const char*d=getenv("CUDA_LIBRARY_DIRS");!lib&&d&&*d;){{ /* a colon-separated list, tried after the usual places */
   const char*e=strchr(d,':'); size_t n=e?(size_t)(e-d):strlen(d); char b[4096];
   if(n+strlen(files[i])+2<sizeof b){{sprintf(b,"%.*s/%s",(int)n,d,files[i]);lib=dlopen(b,RTLD_NOW|RTLD_GLOBAL);}}
   d=e?e+1:0; }} }} }}
__attribute__((visibility("hidden"))) void*{p}_resolve(unsigned i){{
 pthread_once(&once,find); void*f=lib?dlsym(lib,names[i]):0;
 if(!f){{ {pick} return (void*)missing; }}
 __atomic_store_n(&{p}_slots[i],f,__ATOMIC_RELEASE); return f; }}
'''
    d=out/"lazy"; (d/f"{name}.s").write_text("\n".join(a)); (d/f"{name}.c").write_text(code); objs=[]
    for ext in("c","s"):
        o=d/f"{name}_{ext}.o"; subprocess.check_call(["gcc","-O2","-fPIC","-c","-o",o,d/f"{name}.{ext}"]); objs.append(o)
    ar=d/f"lib{name}.a"; ar.unlink(missing_ok=True); subprocess.check_call(["ar","crs",ar]+objs)
    for f in objs+[d/f"{name}.s",d/f"{name}.c"]: f.unlink()
PY
  for d in lazy stub; do cp "$C/cuda/lib/libcudart_static.a" "$C/link/$d/libcudart.a"; done # the CUDA runtime is linked in; it opens libcuda.so.1 itself
}

environment() {
  rm -rf "$C/cuda/lib/stubs"; cp -r "$C/link/${LINK:-lazy}" "$C/cuda/lib/stubs"   # cudarc's build script adds this folder to the linker's search
  export CUDAFORGE_HOME=$C/forge CUDA_HOME=$C/cuda NVCC=$C/wrap/nvcc KERNELS=${KERNELS:-slim}
  export CUDARC_CUDA_VERSION=13000   # cudarc's bindings; without it cudarc runs nvcc from the PATH
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}   # without it nvidia-smi is asked; 90 becomes sm_90a
  export CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}   # the default is half the cores
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/cuda-${KERNELS}}
}

check() {
  ls -l "$1"; readelf -d "$1" | grep NEEDED || true
  readelf --version-info "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1
  echo "PTX: $(grep -a -oE '^\.target sm_[0-9a-z]+' "$1" | sort | uniq -c | tr '\n' ';')"
  readelf -SW "$1" | grep -E 'nv_fatbin|nvFatBin' || echo "no embedded machine code"
}

case ${1:-} in
  setup) setup;;
  cargo) shift; environment; exec cargo "$@";;
  check) check "$2";;
  *) sed -n '2,19p' "$0"; exit 2;;
esac
